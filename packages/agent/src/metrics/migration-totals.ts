/** What a migration object counts from its beginning on, and the counter that each adds to. */
import type { MigrationDisk, MigrationObject } from "@vmferry/protocol";

export interface MigrationTotal {
  readonly counter: "data" | "wire" | "reconnects" | "faults";
  readonly labels: Readonly<Record<string, string>>;
  readonly of: (object: MigrationObject) => number;
}

const ram = (kind: string, of: (ram: MigrationObject["ram"]) => number): MigrationTotal => ({
  counter: "data",
  labels: { part: "ram", kind },
  of: (object) => of(object.ram),
});

const disk = (kind: string, of: (disk: MigrationDisk) => number): MigrationTotal => ({
  counter: "data",
  labels: { part: "disk", kind },
  of: ({ disks }) => sumOf(disks.map(of)),
});

export const MIGRATION_TOTALS: readonly MigrationTotal[] = [
  ram("sent", ({ sentBytes }) => sentBytes),
  ram("zero", ({ zeroBytes }) => zeroBytes),
  ram("unchanged", ({ unchangedBytes }) => unchangedBytes),
  disk("copied", ({ copiedBytes }) => copiedBytes),
  disk("mirrored", ({ mirroredBytes }) => mirroredBytes),
  disk("zero", ({ zeroBytes }) => zeroBytes),
  disk("unchanged", ({ unchangedBytes }) => unchangedBytes),
  disk("saved", ({ savedBytes }) => savedBytes),
  { counter: "wire", labels: {}, of: ({ wire }) => wire.bytes },
  { counter: "reconnects", labels: {}, of: ({ wire }) => wire.reconnects },
  { counter: "faults", labels: {}, of: ({ faults }) => faults.count },
];

export function sumOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, each) => sum + each, 0);
}

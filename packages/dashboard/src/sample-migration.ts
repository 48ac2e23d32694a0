/** For tests: a migration as the agent tells of it. */
import type { AgentEvent, MigrationDisk, MigrationObject, MigrationPhase } from "@vmferry/protocol";

const BEGAN_MS = Date.parse("2030-01-01T10:00:00.000Z");

/** In the last of these phases, each of which began so many milliseconds after the first. */
export function sampleMigration(
  phases: readonly (readonly [MigrationPhase, number])[],
  changes: Partial<MigrationObject> = {},
): MigrationObject {
  return {
    id: "m1",
    role: "source",
    traceId: null,
    guest: "web1",
    destination: "host-b",
    phase: phases.at(-1)?.[0] ?? "preparing",
    phases: phases.map(([phase, ms]) => ({ phase, at: atMs(ms) })),
    ram: {
      ...{ totalBytes: 0, sentBytes: 0, remainingBytes: null, heldBytes: 0, zeroBytes: 0 },
      ...{ unchangedBytes: 0, pass: 0, dirtyBytesPerSecond: null },
    },
    disks: [],
    wire: { bytes: 0, bytesPerSecond: null, reconnects: 0 },
    faults: { count: 0, p50Us: null, p99Us: null },
    fallback: null,
    predictedDowntimeMs: null,
    etaMs: null,
    result: null,
    error: null,
    mayCancel: true,
    ...changes,
  };
}

export function sampleDisk(changes: Partial<MigrationDisk> = {}): MigrationDisk {
  return {
    ...{ id: "disk0", mode: "copy", totalBytes: 1024 ** 3, copiedBytes: 0, remainingBytes: null },
    ...{ mirroredBytes: 0, heldBytes: 0, round: 0, zeroBytes: 0, unchangedBytes: 0, savedBytes: 0 },
    ...changes,
  };
}

export function sampleEvent(
  id: number,
  ms: number,
  body: Pick<AgentEvent, "type"> & { readonly migration: MigrationObject },
): AgentEvent {
  return { id, at: atMs(ms), ...body } as AgentEvent;
}

function atMs(ms: number): string {
  return new Date(BEGAN_MS + ms).toISOString();
}

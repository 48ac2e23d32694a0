// QEMU's own migration from one QEMU to another, both of which are there and configured.

import type { RawQmp, RawQmpEvent } from "./raw-qmp.ts";

export interface NativePair {
  readonly source: RawQmp;
  readonly dest: RawQmp;
  /** Of the dest's host, on the link that is measured. */
  readonly destAddress: string;
}

export interface NativeMigration {
  /** Gives the command from which time is counted. */
  begin(): Promise<void>;
  /** QEMU's last event of the migration; rejects where it broke before there was one. */
  ended(): Promise<RawQmpEvent>;
  cancel(): Promise<void>;
}

const MIGRATION_PORT = 4444;
const FINAL_STATUS = ["completed", "failed", "cancelled"];

/** Of a guest that has nothing but memory and devices. Resolves when the dest waits for it. */
export async function preparePlainMigration(pair: NativePair): Promise<NativeMigration> {
  const { source, dest } = pair;
  await dest.execute("migrate-incoming", { uri: migrationUri(pair) });
  // For a QEMU that waits for a guest, `cont` means: run when it has come.
  await dest.execute("cont");
  const final = source.waitFor(isFinalStatus);
  return {
    begin: async () => {
      await source.execute("migrate", { uri: migrationUri(pair) });
    },
    ended: () => final,
    cancel: async () => {
      await source.execute("migrate_cancel");
    },
  };
}

export function migrationUri({ destAddress }: NativePair): string {
  return `tcp:${destAddress}:${MIGRATION_PORT}`;
}

export function isFinalStatus(event: RawQmpEvent): boolean {
  return FINAL_STATUS.includes(statusOf(event) ?? "");
}

/** Null for an event that is not about the migration. */
export function statusOf({ event, data }: RawQmpEvent): string | null {
  return event === "MIGRATION" ? String(data?.["status"]) : null;
}

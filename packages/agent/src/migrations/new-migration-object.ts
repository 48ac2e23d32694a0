import type { MigrationObject, MigrationResult, MigrationRole } from "@vmferry/protocol";

export interface NewMigration {
  readonly id: string;
  readonly role: MigrationRole;
  readonly guest: string;
  readonly destination: string;
  /** Null where an earlier life of the agent began it, and nothing says when. */
  readonly startedAt: Date | null;
  readonly traceId?: string | null;
}

/** Of a migration whose counters ended with an earlier life of the agent. */
export const UNKNOWN_RESULT: MigrationResult = {
  downtimeMs: null,
  totalMs: null,
  wireBytes: null,
  ramDigest: null,
  diskDigests: {},
};

/** The object of a migration that has just begun: nothing counted, nothing known. */
export function newMigrationObject(migration: NewMigration): MigrationObject {
  const { id, role, guest, destination, startedAt, traceId = null } = migration;
  return {
    id,
    role,
    guest,
    destination,
    phase: "preparing",
    phases: startedAt === null ? [] : [{ phase: "preparing", at: startedAt.toISOString() }],
    ram: {
      totalBytes: null,
      sentBytes: 0,
      remainingBytes: null,
      heldBytes: 0,
      zeroBytes: 0,
      unchangedBytes: 0,
      pass: 0,
      dirtyBytesPerSecond: null,
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
    traceId,
  };
}

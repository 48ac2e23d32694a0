import { Type, type Static } from "typebox";
import type { Immutable } from "./immutable.ts";
import { ProblemCodeSchema } from "./problem.ts";
import { CountSchema, nullable, TimestampSchema } from "./schema-parts.ts";

const MigrationPhaseSchema = Type.Enum([
  "preparing",
  "disk-copy",
  "pre-copy",
  "stunned",
  "device-state",
  "handing-over",
  "post-copy",
  "completing",
  "completed",
  "failed",
  "cancelled",
  "in-doubt",
]);

const MigrationRoleSchema = Type.Enum(["source", "dest"]);

const MigrationRamSchema = Type.Object({
  totalBytes: nullable(CountSchema),
  sentBytes: CountSchema,
  remainingBytes: nullable(CountSchema),
  /** Changed too often to send now: kept back, latest content only. */
  heldBytes: CountSchema,
  zeroBytes: CountSchema,
  unchangedBytes: CountSchema,
  pass: CountSchema,
  dirtyBytesPerSecond: nullable(Type.Number({ minimum: 0 })),
});

const MigrationDiskSchema = Type.Object({
  id: Type.String(),
  mode: Type.Enum(["copy", "shared", "scratch"]),
  totalBytes: nullable(CountSchema),
  /** Data of blocks that were copied, in all rounds. */
  copiedBytes: CountSchema,
  remainingBytes: nullable(CountSchema),
  /** Guest writes that were sent on as they came. */
  mirroredBytes: CountSchema,
  /** Written too often to be sent now: kept back until the block cools, or for the last round. */
  heldBytes: CountSchema,
  round: CountSchema,
  /** Holes and zero blocks, which take no data. */
  zeroBytes: CountSchema,
  /** Blocks read in vain: the dest had their content already. Bloom's false positives are among them. */
  unchangedBytes: CountSchema,
  /** Guest writes that holding their blocks kept off the link. */
  savedBytes: CountSchema,
});

const MigrationWireSchema = Type.Object({
  bytes: CountSchema,
  bytesPerSecond: nullable(Type.Number({ minimum: 0 })),
  reconnects: CountSchema,
});

const MigrationFaultsSchema = Type.Object({
  count: CountSchema,
  p50Us: nullable(Type.Number({ minimum: 0 })),
  p99Us: nullable(Type.Number({ minimum: 0 })),
});

/** The file of pages on the shared filesystem. With `complete` memory does not need the source's host. */
const MigrationFallbackSchema = Type.Enum(["growing", "complete", "failed"]);

const MigrationResultSchema = Type.Object({
  downtimeMs: nullable(Type.Number({ minimum: 0 })),
  totalMs: nullable(Type.Number({ minimum: 0 })),
  wireBytes: nullable(CountSchema),
  ramDigest: nullable(Type.String()),
  /** By the disk's id. */
  diskDigests: Type.Record(Type.String(), Type.String()),
});

export const MigrationErrorSchema = Type.Object({ code: ProblemCodeSchema, detail: Type.String() });

/** One migration as one agent sees it; the same id exists on both. Null is "not known". */
export const MigrationObjectSchema = Type.Object({
  id: Type.String(),
  role: MigrationRoleSchema,
  guest: Type.String(),
  destination: Type.String(),
  phase: MigrationPhaseSchema,
  /** Begins with `preparing`, unless an earlier life of the agent began it: then nobody knows when. */
  phases: Type.Array(Type.Object({ phase: MigrationPhaseSchema, at: TimestampSchema })),
  ram: MigrationRamSchema,
  disks: Type.Array(MigrationDiskSchema),
  wire: MigrationWireSchema,
  faults: MigrationFaultsSchema,
  /** Null while nothing of memory goes by a share. */
  fallback: Type.Union([MigrationFallbackSchema, Type.Null()]),
  predictedDowntimeMs: nullable(Type.Number({ minimum: 0 })),
  etaMs: nullable(Type.Number({ minimum: 0 })),
  result: Type.Union([MigrationResultSchema, Type.Null()]),
  error: Type.Union([MigrationErrorSchema, Type.Null()]),
  mayCancel: Type.Boolean(),
  /** Of the request's `traceparent`. */
  traceId: nullable(Type.String()),
});

export const MigrationListSchema = Type.Object({
  migrations: Type.Array(MigrationObjectSchema),
  nextCursor: nullable(Type.String()),
});

export type MigrationPhase = Static<typeof MigrationPhaseSchema>;
export type MigrationRole = Static<typeof MigrationRoleSchema>;
export type MigrationRam = Immutable<Static<typeof MigrationRamSchema>>;
export type MigrationDisk = Immutable<Static<typeof MigrationDiskSchema>>;
export type MigrationWire = Immutable<Static<typeof MigrationWireSchema>>;
export type MigrationFaults = Immutable<Static<typeof MigrationFaultsSchema>>;
export type MigrationFallback = Static<typeof MigrationFallbackSchema>;
export type MigrationResult = Immutable<Static<typeof MigrationResultSchema>>;
export type MigrationError = Immutable<Static<typeof MigrationErrorSchema>>;
export type MigrationObject = Immutable<Static<typeof MigrationObjectSchema>>;
export type MigrationList = Immutable<Static<typeof MigrationListSchema>>;

export type FinalMigrationPhase = "completed" | "failed" | "cancelled";

/** `in-doubt` is not final: it ends when the two agents have talked. */
export function isFinalPhase(phase: MigrationPhase): phase is FinalMigrationPhase {
  return phase === "completed" || phase === "failed" || phase === "cancelled";
}

import type {
  MigrationDiskOptions,
  MigrationLimits,
  MigrationLimitsPatch,
  MigrationRequest,
} from "@vmferry/protocol";

/** What one migration is to do. */
export interface MigrationPlan {
  readonly id: string;
  readonly destination: string;
  readonly onStall: Exclude<MigrationRequest["onStall"], "post-copy">;
  readonly disk: MigrationDiskOptions;
  readonly limits: MigrationLimits;
  /** Of the request; null without one. */
  readonly traceParent: string | null;
}

/** A limit that the patch does not name stays; null lifts one. */
export function changedLimits(
  limits: MigrationLimits,
  patch: MigrationLimitsPatch,
): MigrationLimits {
  return { ...limits, ...patch };
}

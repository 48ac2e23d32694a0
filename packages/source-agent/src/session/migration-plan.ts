import type {
  MigrationDiskOptions,
  MigrationLimits,
  MigrationLimitsPatch,
  MigrationRequest,
  ProblemCode,
} from "@vmferry/protocol";

/** What one migration is to do. */
export interface MigrationPlan {
  readonly id: string;
  readonly destination: string;
  readonly mode: MigrationRequest["mode"];
  readonly onStall: MigrationRequest["onStall"];
  readonly fallback: MigrationRequest["fallback"];
  readonly disk: MigrationDiskOptions;
  readonly limits: MigrationLimits;
  /** Of the request; null without one. */
  readonly traceParent: string | null;
}

/** A request without post-copy has none by its default either. */
export function whatOnStall({
  mode,
  onStall,
}: Pick<MigrationRequest, "mode" | "onStall">): MigrationRequest["onStall"] {
  return mode === "pre-copy" && onStall === "post-copy" ? "throttle" : onStall;
}

/** Post-copy may have to slow the guest down for a moment, too. */
export function mayThrottle({ mode, onStall }: MigrationPlan): boolean {
  return onStall === "throttle" || onStall === "post-copy" || mode === "post-copy";
}

/** Something degraded, and the migration goes on. */
export type OnWarning = (code: ProblemCode, detail: string) => void;

/** A limit that the patch does not name stays; null lifts one. */
export function changedLimits(
  limits: MigrationLimits,
  patch: MigrationLimitsPatch,
): MigrationLimits {
  return { ...limits, ...patch };
}

import { Type, type Static } from "typebox";
import type { Immutable } from "./immutable.ts";
import { nullable } from "./schema-parts.ts";

/**
 * Checks that a request may override by name. They compare an estimate with what a host has to
 * spare; when it turns out that it was right, the migration ends and the guest stays.
 */
export const OVERRIDABLE_CHECKS = ["cpu-features", "dest-space", "memory", "source-space"] as const;

export type OverridableCheck = (typeof OVERRIDABLE_CHECKS)[number];

/** `skip`: it could not be looked at, or there is nothing to look at. */
export const CHECK_STATUSES = ["pass", "warn", "fail", "skip"] as const;

export const CheckSchema = Type.Object({
  name: Type.String(),
  status: Type.Enum([...CHECK_STATUSES]),
  detail: Type.String(),
  /** What to do about it. */
  hint: nullable(Type.String()),
});

export const PreflightReportSchema = Type.Object({ checks: Type.Array(CheckSchema) });

/** One thing that was looked at before a migration. */
export type Check = Immutable<Static<typeof CheckSchema>>;
export type PreflightReport = Immutable<Static<typeof PreflightReportSchema>>;

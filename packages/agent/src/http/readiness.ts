import { Type, type Static } from "typebox";
import type { Immutable } from "@vmferry/protocol";

export const ReadinessReasonSchema = Type.Object({
  /** Stable, kebab-case. */
  code: Type.String(),
  detail: Type.String(),
});

/** One reason why an agent should not be given work now. Anybody can read it. */
export type ReadinessReason = Immutable<Static<typeof ReadinessReasonSchema>>;

/** An empty list is "ready". */
export type Readiness = () => readonly ReadinessReason[] | Promise<readonly ReadinessReason[]>;

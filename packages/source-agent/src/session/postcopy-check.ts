import { ProblemError } from "@vmferry/agent";
import type { Cargo } from "./cargo.ts";

/** Refuses what a request with mode `pre-copy` has ruled out. */
export const PRECOPY_ONLY = "the migration was asked for with mode pre-copy";

/** Throws `post-copy-unavailable` with what is known to speak against it. */
export function assertPostcopy(cargo: Pick<Cargo, "postcopyRefusal"> | null): void {
  const refusal = cargo?.postcopyRefusal ?? null;
  if (refusal === null) return;
  throw new ProblemError(`Post-copy is not possible: ${refusal}.`, {
    code: "post-copy-unavailable",
  });
}

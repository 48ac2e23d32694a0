import { ProblemError } from "@vmferry/agent";

/** Refuses what a request with mode `pre-copy` has ruled out. */
export const PRECOPY_ONLY = "the migration was asked for with mode pre-copy";

/** Throws `post-copy-unavailable` with what is known to speak against it. */
export function assertPostcopy(refusal: string | null): void {
  if (refusal === null) return;
  throw new ProblemError(`Post-copy is not possible: ${refusal}.`, {
    code: "post-copy-unavailable",
  });
}

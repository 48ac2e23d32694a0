import { ProblemError } from "@vmferry/agent";

/** Refuses what a request with mode `pre-copy` has ruled out. */
export const PRECOPY_ONLY = "the migration was asked for with mode pre-copy";

/** What a problem or a warning `post-copy-unavailable` says. */
export function notPossible(refusal: string): string {
  return `Post-copy is not possible: ${refusal}.`;
}

/** Throws `post-copy-unavailable` with what is known to speak against it. */
export function assertPostcopy(refusal: string | null): void {
  if (refusal === null) return;
  throw new ProblemError(notPossible(refusal), { code: "post-copy-unavailable" });
}

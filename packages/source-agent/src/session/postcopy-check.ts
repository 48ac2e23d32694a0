import { ProblemError } from "@vmferry/agent";
import type { Cargo } from "./cargo.ts";

/** Throws `post-copy-unavailable` with what speaks against it. */
export function assertPostcopy(cargo: Pick<Cargo, "postcopyRefusal"> | null): void {
  const refusal = cargo === null ? "the migration has only just begun" : cargo.postcopyRefusal;
  if (refusal === null) return;
  throw new ProblemError(`Post-copy is not possible: ${refusal}.`, {
    code: "post-copy-unavailable",
  });
}

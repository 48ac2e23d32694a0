/** What speaks against a fallback by the shared filesystem, found before anything of the guest is touched. */
import { ProblemError } from "@vmferry/agent";
import type { Agreement, ControlMessageOf, MigrationRequest } from "@vmferry/protocol";

const HINT =
  "Give both agents the same VMFERRY_SHARED_DIR, a directory that both hosts mount, or ask for " +
  'fallback "none".';

/** Of the request itself. */
export function assertFallback(
  { fallback, mode }: Pick<MigrationRequest, "fallback" | "mode">,
  sharedDir: string | null,
): void {
  if (fallback === "none") return;
  if (sharedDir === null) throw unavailable(`This agent has no VMFERRY_SHARED_DIR. ${HINT}`);
  if (mode !== "pre-copy") return;
  throw unavailable(
    'With mode "pre-copy" no memory follows the guest, for which fallback "shared-filesystem" is: ' +
      'leave it out, or ask for mode "auto" or "post-copy".',
  );
}

export function assertPageFile({ features }: Agreement): void {
  if (features.has("page-file")) return;
  throw unavailable("The destination's agent does not read page files: upgrade it.");
}

/** The dest has seen what this agent has shown in its shared directory. */
export function assertSameShare({ witness }: ControlMessageOf<"accept">): void {
  if (witness) return;
  throw unavailable(
    `The destination does not see this agent's shared directory, or it is not fit for a witness. ${HINT}`,
  );
}

function unavailable(detail: string): ProblemError {
  return new ProblemError(detail, { code: "fallback-unavailable" });
}

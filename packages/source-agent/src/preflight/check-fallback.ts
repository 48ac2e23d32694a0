import { fails, passes, skips, type Finding } from "@vmferry/agent";
import type { MigrationRequest } from "@vmferry/protocol";
import type { PeerAnswer } from "./peer-answer.ts";

/** Memory can follow by way of a share only where both agents see the same one. */
export function checkFallback(
  { fallback }: Pick<MigrationRequest, "fallback">,
  answer: PeerAnswer,
): Finding {
  if (fallback === "none") return skips("The request has no fallback.");
  if (answer.kind !== "answered") return skips("The destination did not say.");
  const share = answer.result.checks.find(({ name }) => name === "shared-directory");
  if (share?.status === "pass") return passes(share.detail);
  return fails(
    share?.detail ?? "The destination did not look at the shared directory.",
    share?.hint ?? "Upgrade the destination's agent.",
  );
}

import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import type { MigrationRequest } from "@vmferry/protocol";
import type { PeerAnswer } from "./peer-answer.ts";

const HINT =
  "Let the dest agent's user open /dev/userfaultfd (chgrp and chmod, by a udev rule), or set " +
  "vm.unprivileged_userfaultfd to 1 there. Into a QEMU that somebody has prepared there is none.";

/** QEMU at the destination needs userfaultfd for it. */
export function checkPostCopy(
  { mode, onStall }: Pick<MigrationRequest, "mode" | "onStall">,
  answer: PeerAnswer,
): Finding {
  if (mode === "pre-copy") return skips("The request has no post-copy.");
  if (answer.kind !== "answered") return skips("The destination did not say.");
  const { postCopyRefusal: refusal } = answer.result;
  if (refusal === "") return passes("The destination can take memory after the hand-over.");
  const text = `Post-copy is not possible: ${refusal}`;
  if (mode === "post-copy") return fails(text, HINT);
  return onStall === "post-copy" ? warns(text, HINT) : skips(`${text} It is not asked for.`);
}

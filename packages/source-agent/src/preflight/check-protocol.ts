import { fails, passes, skips, type Finding } from "@vmferry/agent";
import { codeOf, messageOf } from "@vmferry/core";
import type { PeerAnswer } from "./peer-answer.ts";

const HINT = "Upgrade the older of the two agents.";
const OF_THE_PROTOCOL = ["protocol-version-unsupported", "protocol-violation"];

export function checkProtocol(answer: PeerAnswer): Finding {
  if (answer.kind !== "failed") {
    return passes(`Both agents speak version ${answer.version} of the protocol.`);
  }
  if (OF_THE_PROTOCOL.includes(codeOf(answer.error) ?? "")) {
    return fails(messageOf(answer.error), HINT);
  }
  return skips("The destination's agent did not say what it speaks.");
}

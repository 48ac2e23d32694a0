import { passes, skips, warns, type Finding } from "@vmferry/agent";
import { codeOf, messageOf } from "@vmferry/core";
import type { PeerAnswer } from "./peer-answer.ts";

/** What other checks fail with. */
const SAID_ELSEWHERE = [
  ...["peer-unreachable", "peer-lost", "peer-unauthorized"],
  ...["protocol-version-unsupported", "protocol-violation"],
];

/** Whether the checks of the destination are among the others. */
export function checkDestination(answer: PeerAnswer): Finding {
  switch (answer.kind) {
    case "failed":
      if (isSaidElsewhere(answer.error)) return skips("The destination could not be asked.");
      return warns(
        `The destination turns this agent away: ${messageOf(answer.error)}`,
        "See the log of its agent.",
      );
    case "silent":
      return warns(
        `The destination does not say what it would make of the guest: ${answer.reason}.`,
        "Upgrade its agent; what it looks at when the guest is offered stays as it is.",
      );
    case "answered":
      return passes(`The destination has looked at ${answer.result.checks.length} things.`);
  }
}

function isSaidElsewhere(error: unknown): boolean {
  return SAID_ELSEWHERE.includes(codeOf(error) ?? "");
}

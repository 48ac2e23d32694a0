import { passes, skips, warns, type Finding } from "@vmferry/agent";
import type { PeerAnswer } from "./peer-answer.ts";

/** Whether the checks of the destination are among the others. */
export function checkDestination(answer: PeerAnswer): Finding {
  switch (answer.kind) {
    case "failed":
      return skips("The destination could not be asked.");
    case "silent":
      return warns(
        `The destination does not say what it would make of the guest: ${answer.reason}.`,
        "Upgrade its agent; what it looks at when the guest is offered stays as it is.",
      );
    case "answered":
      return passes(`The destination has looked at ${answer.result.checks.length} things.`);
  }
}

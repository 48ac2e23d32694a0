import { ProtocolError } from "./protocol-error.ts";

/** For tests: the rule that `act` finds broken, or the code where it was none. */
export function ruleOf(act: () => void): string {
  try {
    act();
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return error.detail.code === "protocol-violation" ? error.detail.rule : error.detail.code;
  }
  return "accepted";
}

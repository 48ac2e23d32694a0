import { PeerError } from "@vmferry/agent";
import { violation, type ControlMessage } from "@vmferry/protocol";

/** For a message that is not due in a hand-over without data. */
export function notDue(message: ControlMessage): Error {
  return violation(`${message.kind} in the middle of a session`);
}

export function agentStopped(): Error {
  return new PeerError("the dest agent was stopped", { code: "agent-stopped" });
}

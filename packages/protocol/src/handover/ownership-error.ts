import { AgentError } from "@vmferry/core";

/** An event that the ownership protocol does not know in this state. Never ignored. */
export class OwnershipError extends AgentError<{
  readonly code: "ownership-illegal-event";
  readonly role: "source" | "dest";
  readonly phase: string;
  readonly event: string;
}> {}

export function illegalEvent(role: "source" | "dest", phase: string, event: string): never {
  throw new OwnershipError(`${role} in ${phase} has no answer to ${event}`, {
    code: "ownership-illegal-event",
    role,
    phase,
    event,
  });
}

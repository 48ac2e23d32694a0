import { AgentError } from "@vmferry/core";

/** What ends a connection, or keeps a server from listening. */
export class NbdError extends AgentError<
  | { readonly code: "nbd-protocol"; readonly rule: string }
  | { readonly code: "nbd-handshake-timeout"; readonly timeoutMs: number }
  | { readonly code: "nbd-listen-failed"; readonly path: string; readonly systemCode: string }
> {}

/** `rule` names what the client broke; it is a constant text, never the client's bytes. */
export function violation(rule: string): NbdError {
  return new NbdError(`the NBD client broke the protocol: ${rule}`, { code: "nbd-protocol", rule });
}

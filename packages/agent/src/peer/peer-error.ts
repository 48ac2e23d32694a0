import { AgentError } from "@vmferry/core";

/** What can go wrong with the other agent without anybody breaking the protocol. */
export class PeerError extends AgentError<
  | { readonly code: "peer-unreachable"; readonly url: string }
  | { readonly code: "peer-lost"; readonly closeCode: number | null }
  | { readonly code: "peer-unauthorized"; readonly url: string }
  | { readonly code: "agent-stopped" }
> {}

import { AgentError } from "@vmferry/core";

/** Certificates and keys that cannot be used; the message lists everything that is wrong with them. */
export class TlsError extends AgentError<{
  readonly code: "tls-files-unusable";
  readonly problems: readonly string[];
}> {}

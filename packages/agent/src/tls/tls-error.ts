import { AgentError } from "@vmferry/core";

/**
 * Certificates and keys that cannot be used, or not at this time; the message lists everything that is
 * wrong with them.
 */
export class TlsError extends AgentError<{
  readonly code: "tls-files-unusable" | "tls-certificate-invalid";
  readonly problems: readonly string[];
}> {}

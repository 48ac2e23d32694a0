import { AgentError } from "@vmferry/core";

/** The peer broke the protocol, or a frame was damaged on its way: the connection is closed. */
export class ProtocolError extends AgentError<
  | { readonly code: "protocol-violation"; readonly rule: string }
  | { readonly code: "frame-corrupt"; readonly sequence: string }
  | {
      readonly code: "protocol-version-unsupported";
      readonly ours: string;
      readonly theirs: string;
    }
> {}

/** `rule` names what was broken; it is a constant text, never the peer's bytes. */
export function violation(rule: string, cause?: unknown): ProtocolError {
  return new ProtocolError(
    `the peer broke the protocol: ${rule}`,
    { code: "protocol-violation", rule },
    cause === undefined ? undefined : { cause },
  );
}

/** WebSocket close codes that vmferry gives a meaning (RFC 6455 7.4.2: 4000 to 4999 are free). */
export const CloseCode = {
  DONE: 4000,
  PROTOCOL_VIOLATION: 4001,
  VERSION_UNSUPPORTED: 4002,
  FRAME_CORRUPT: 4003,
  SESSION_ENDED: 4004,
  SESSION_UNKNOWN: 4005,
} as const;
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode];

/** The close code for an error that ends a connection. */
export function closeCodeOf(error: unknown): CloseCode {
  if (!(error instanceof ProtocolError)) return CloseCode.SESSION_ENDED;
  switch (error.detail.code) {
    case "protocol-violation":
      return CloseCode.PROTOCOL_VIOLATION;
    case "protocol-version-unsupported":
      return CloseCode.VERSION_UNSUPPORTED;
    case "frame-corrupt":
      return CloseCode.FRAME_CORRUPT;
  }
}

import { AgentError } from "@vmferry/core";

/** Why a migration stream was refused. */
export type StreamErrorDetail =
  | { readonly code: "stream-bad-magic"; readonly magic: number }
  | { readonly code: "stream-bad-version"; readonly version: number }
  | { readonly code: "stream-unsupported-configuration"; readonly subsection: string }
  | { readonly code: "stream-unknown-record"; readonly recordType: number }
  | { readonly code: "stream-unexpected-record"; readonly record: string }
  | {
      readonly code: "stream-unsupported-section";
      readonly idstr: string;
      readonly instanceId: number;
    }
  | { readonly code: "stream-ram-version"; readonly version: number }
  | { readonly code: "stream-bad-block-list"; readonly reason: string }
  | { readonly code: "stream-unknown-section"; readonly sectionId: number }
  | { readonly code: "stream-bad-footer"; readonly expected: number; readonly found: number }
  | { readonly code: "stream-unknown-command"; readonly command: number }
  | { readonly code: "stream-unsupported-command"; readonly command: string }
  | {
      readonly code: "stream-bad-command";
      readonly command: string;
      readonly payloadBytes: number;
    }
  | { readonly code: "stream-bad-package"; readonly reason: string }
  | { readonly code: "stream-unsupported-flag"; readonly flag: string }
  | { readonly code: "stream-zero-fill"; readonly fill: number }
  | { readonly code: "stream-unknown-block"; readonly name: string }
  | { readonly code: "stream-no-block"; readonly page: number }
  | {
      readonly code: "stream-page-out-of-range";
      readonly block: string;
      readonly page: number;
      readonly pageCount: number;
    }
  | {
      readonly code: "stream-over-limit";
      readonly field: string;
      readonly value: number;
      readonly limit: number;
    }
  | { readonly code: "stream-truncated"; readonly phase: string };

/** The source QEMU sent something that this agent cannot carry over to a destination. */
export class StreamError extends AgentError<StreamErrorDetail> {}

export function unexpectedRecord(record: string): StreamError {
  return new StreamError(`${record} does not belong at this point of the stream`, {
    code: "stream-unexpected-record",
    record,
  });
}

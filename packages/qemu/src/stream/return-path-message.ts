import { AgentError } from "@vmferry/core";

/*
 * The return path: what a destination QEMU says to its source, on the way back of the same socket.
 *
 *   message = be16 type  be16 length  payload
 *
 * RECV_BITMAP alone goes on behind its payload: be64 size, the bitmap, be64 end mark.
 */

/** One answer of a destination QEMU. Sizes are bytes; `block` is the name of a RAM block. */
export type ReturnPathMessage =
  /** The last one: 0 = loaded, anything else = failed. The source waits for it, paused. */
  | { readonly type: "shut"; readonly value: number }
  | { readonly type: "pong"; readonly value: number }
  /** A vCPU waits for these pages. */
  | {
      readonly type: "req-pages";
      readonly block: string;
      readonly startBytes: number;
      readonly lengthBytes: number;
    }
  /** One bit a page, lowest bit of byte 0 first, 1 = received; its owner is the receiver. */
  | { readonly type: "recv-bitmap"; readonly block: string; readonly bitmap: Buffer }
  | { readonly type: "resume-ack"; readonly value: number }
  | { readonly type: "switchover-ack" };

export class ReturnPathError extends AgentError<
  | { readonly code: "return-path-unknown-type"; readonly type: number }
  | {
      readonly code: "return-path-bad-length";
      readonly message: string;
      readonly payloadBytes: number;
    }
  | {
      readonly code: "return-path-over-limit";
      readonly field: string;
      readonly value: number;
      readonly limit: number;
    }
  | { readonly code: "return-path-unaligned"; readonly field: string; readonly value: number }
  | { readonly code: "return-path-no-block" }
  | { readonly code: "return-path-unknown-block"; readonly block: string }
  | {
      readonly code: "return-path-bad-request";
      readonly block: string;
      readonly startBytes: number;
      readonly lengthBytes: number;
    }
  | { readonly code: "return-path-bad-bitmap"; readonly reason: string }
  | { readonly code: "return-path-after-shut" }
  | { readonly code: "return-path-truncated" }
> {}

export const RETURN_PATH_TYPE = {
  SHUT: 1,
  PONG: 2,
  REQ_PAGES_ID: 3,
  REQ_PAGES: 4,
  RECV_BITMAP: 5,
  RESUME_ACK: 6,
  SWITCHOVER_ACK: 7,
} as const;

/** A payload that is longer ends the source's return path, whatever its type. */
export const RETURN_PATH_PAYLOAD_BYTES_MAX = 512;
/** The two halves of what stands behind a bitmap. */
export const BITMAP_END_HIGH = 0x01234567;
export const BITMAP_END_LOW = 0x89abcdef;

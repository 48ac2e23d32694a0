import { assert } from "@vmferry/core";

import { encodeBlockName } from "./ram-block.ts";
import {
  BITMAP_END_HIGH,
  BITMAP_END_LOW,
  RETURN_PATH_TYPE,
  type ReturnPathMessage,
} from "./return-path-message.ts";
import { PAGE_BYTES } from "./stream-format.ts";

const HEADER_BYTES = 4;

/** 0 = the destination has loaded the guest: the source QEMU completes. Anything else fails it. */
export function encodeShut(value: number): Buffer {
  return encodeValue(RETURN_PATH_TYPE.SHUT, value);
}

export function encodePong(value: number): Buffer {
  return encodeValue(RETURN_PATH_TYPE.PONG, value);
}

export function encodeResumeAck(value: number): Buffer {
  return encodeValue(RETURN_PATH_TYPE.RESUME_ACK, value);
}

export function encodeSwitchoverAck(): Buffer {
  return encodeMessage(RETURN_PATH_TYPE.SWITCHOVER_ACK, []);
}

/** Without `block` the request means the block of the one before it on this connection. */
export function encodeReqPages(request: {
  readonly block?: string;
  readonly startBytes: number;
  readonly lengthBytes: number;
}): Buffer {
  const { block, startBytes, lengthBytes } = request;
  assert(Number.isSafeInteger(startBytes + lengthBytes), "a request ends below 2^53");
  assert(startBytes >= 0 && startBytes % PAGE_BYTES === 0, "a request starts at a page");
  assert(lengthBytes > 0 && lengthBytes % PAGE_BYTES === 0, "a request is for whole pages");
  const range = Buffer.alloc(12);
  range.writeBigUInt64BE(BigInt(startBytes), 0);
  range.writeUInt32BE(lengthBytes, 8);
  if (block === undefined) return encodeMessage(RETURN_PATH_TYPE.REQ_PAGES, [range]);
  return encodeMessage(RETURN_PATH_TYPE.REQ_PAGES_ID, [range, encodeBlockName(block)]);
}

/** Which pages of a block have been received: one bit a page, lowest bit of byte 0 first. */
export function encodeRecvBitmap(block: string, bitmap: Uint8Array): Buffer {
  assert(bitmap.length > 0 && bitmap.length % 8 === 0, "a bitmap is a number of 64-bit words");
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(BigInt(bitmap.length), 0);
  const end = Buffer.alloc(8);
  end.writeUInt32BE(BITMAP_END_HIGH, 0);
  end.writeUInt32BE(BITMAP_END_LOW, 4);
  const message = encodeMessage(RETURN_PATH_TYPE.RECV_BITMAP, [encodeBlockName(block)]);
  return Buffer.concat([message, size, bitmap, end]);
}

export function encodeReturnPath(message: ReturnPathMessage): Buffer {
  switch (message.type) {
    case "shut":
      return encodeShut(message.value);
    case "pong":
      return encodePong(message.value);
    case "req-pages":
      return encodeReqPages(message);
    case "recv-bitmap":
      return encodeRecvBitmap(message.block, message.bitmap);
    case "resume-ack":
      return encodeResumeAck(message.value);
    case "switchover-ack":
      return encodeSwitchoverAck();
  }
}

function encodeValue(type: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(value, 0);
  return encodeMessage(type, [payload]);
}

function encodeMessage(type: number, payload: readonly Buffer[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(type, 0);
  header.writeUInt16BE(
    payload.reduce((bytes, piece) => bytes + piece.length, 0),
    2,
  );
  return Buffer.concat([header, ...payload]);
}

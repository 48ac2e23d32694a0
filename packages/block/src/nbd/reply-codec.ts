/**
 * Replies of the transmission, big-endian:
 *
 *   simple reply   u32 magic · u32 error · u64 cookie · for READ: the data
 *   chunk          u32 magic · u16 flags · u16 type · u64 cookie · u32 length · payload
 *
 * Data go out behind the header that is encoded here, uncopied.
 */
import { assert } from "@vmferry/core";
import type { Extent } from "../block-device.ts";
import {
  ALLOCATION_CONTEXT_ID,
  ExtentState,
  REPLY_FLAG_DONE,
  ReplyType,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from "./nbd-constants.ts";
import { NbdErrno } from "./nbd-errno.ts";

const CHUNK_HEADER_BYTES = 20;

interface ChunkHead {
  readonly cookie: bigint;
  /** The last chunk of its reply. */
  readonly done: boolean;
}

export function encodeSimpleReply(cookie: bigint, errno: NbdErrno | 0): Buffer {
  const bytes = Buffer.allocUnsafe(16);
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(errno, 4);
  bytes.writeBigUInt64BE(cookie, 8);
  return bytes;
}

/** The header of a chunk whose data follow it. */
export function encodeDataChunk(
  head: ChunkHead,
  range: { readonly offset: number; readonly length: number },
): Buffer {
  const bytes = beginChunk(head, ReplyType.OFFSET_DATA, 8);
  bytes.writeUInt32BE(8 + range.length, 16);
  bytes.writeBigUInt64BE(BigInt(range.offset), CHUNK_HEADER_BYTES);
  return bytes;
}

export function encodeHoleChunk(
  head: ChunkHead,
  range: { readonly offset: number; readonly length: number },
): Buffer {
  const bytes = beginChunk(head, ReplyType.OFFSET_HOLE, 12);
  bytes.writeBigUInt64BE(BigInt(range.offset), CHUNK_HEADER_BYTES);
  bytes.writeUInt32BE(range.length, CHUNK_HEADER_BYTES + 8);
  return bytes;
}

export function encodeStatusChunk(cookie: bigint, extents: readonly Extent[]): Buffer {
  assert(extents.length > 0, "a block status tells of at least one extent");
  const bytes = beginChunk({ cookie, done: true }, ReplyType.BLOCK_STATUS, 4 + 8 * extents.length);
  let at = bytes.writeUInt32BE(ALLOCATION_CONTEXT_ID, CHUNK_HEADER_BYTES);
  for (const { length, kind } of extents) {
    at = bytes.writeUInt32BE(length, at);
    at = bytes.writeUInt32BE(kind === "zero" ? ExtentState.HOLE_AND_ZERO : ExtentState.DATA, at);
  }
  return bytes;
}

export function encodeErrorChunk(cookie: bigint, errno: NbdErrno): Buffer {
  const text = Buffer.from(errnoText(errno));
  const bytes = beginChunk({ cookie, done: true }, ReplyType.ERROR, 6 + text.length);
  bytes.writeUInt32BE(errno, CHUNK_HEADER_BYTES);
  bytes.writeUInt16BE(text.length, CHUNK_HEADER_BYTES + 4);
  text.copy(bytes, CHUNK_HEADER_BYTES + 6);
  return bytes;
}

/** Every byte behind the header is the caller's to fill. */
function beginChunk({ cookie, done }: ChunkHead, type: number, payloadBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + payloadBytes);
  bytes.writeUInt32BE(STRUCTURED_REPLY_MAGIC, 0);
  bytes.writeUInt16BE(done ? REPLY_FLAG_DONE : 0, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(cookie, 8);
  bytes.writeUInt32BE(payloadBytes, 16);
  return bytes;
}

function errnoText(errno: NbdErrno): string {
  switch (errno) {
    case NbdErrno.EPERM:
      return "not permitted";
    case NbdErrno.EIO:
      return "the disk failed";
    case NbdErrno.EINVAL:
      return "request not valid";
    case NbdErrno.ENOSPC:
      return "no space left";
    case NbdErrno.EOVERFLOW:
      return "request too long";
    case NbdErrno.ENOTSUP:
      return "request not supported";
    case NbdErrno.ESHUTDOWN:
      return "the disk is being shut down";
  }
}

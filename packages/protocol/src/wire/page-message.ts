/**
 * What the two ends of a page lane say beside PAGES frames; one WebSocket message each, big-endian.
 *
 *   0 u32 crc32c   Castagnoli, over every byte after this field
 *   4 u8  kind     PageMessageKind, 128 and above; a frame has its version there, which is below
 *
 *   REQUEST  5 u8 pages · 6 u16 block · 8 u32 first page                    dest → source, urgent
 *   PLACED   5 u8 lane · 6 u16 0 · 8 u32 bytes of frames                    dest → source, urgent
 *   MISSING  5 u8 last · 6 u16 block · 8 u16 runs · 10 u16 0 · 12 … runs    dest → source, urgent
 *   ALL      5 u8 0 · 6 u16 0                                               dest → source, urgent
 *   SERVED   5 u8 digest follows · 6 u16 0 · 8 … 32 bytes of digest         source → dest, urgent
 *
 * A run of MISSING is u32 first page, u32 count; ascending, and no two of them overlap. Only the last
 * MISSING may be without any. The length is checked before a field behind the kind is read.
 */
import { crc32c } from "@node-rs/crc32";
import { assert, unreachable } from "@vmferry/core";
import { CREDIT_BYTES_MAX, MISSING_RUNS_MAX, RAM_BLOCKS_MAX, REQUEST_PAGES_MAX } from "./limits.ts";
import { ProtocolError, violation } from "./protocol-error.ts";

export const PageMessageKind = {
  /** A vCPU waits for these pages. */
  REQUEST: 129,
  /** So many bytes of a lane's frames are in QEMU. */
  PLACED: 130,
  /** What the dest lacks; the first words on a new pair of lanes. */
  MISSING: 131,
  /** All of it was sent and placed. */
  SERVED: 132,
  /** In the place of MISSING: the dest lacks all that it was told to. */
  ALL: 133,
} as const;
export type PageMessageKind = (typeof PageMessageKind)[keyof typeof PageMessageKind];

/** On the wire, PLACED names a lane by its number. */
export const PageLaneNumber = { urgent: 1, background: 2 } as const;
export type PageLaneName = keyof typeof PageLaneNumber;

export interface MissingRun {
  readonly first: number;
  readonly count: number;
}

export type PageMessage =
  | {
      readonly kind: "request";
      readonly block: number;
      readonly firstPage: number;
      readonly pages: number;
    }
  | { readonly kind: "placed"; readonly lane: PageLaneName; readonly bytes: number }
  | {
      readonly kind: "missing";
      readonly block: number;
      readonly runs: readonly MissingRun[];
      readonly last: boolean;
    }
  | { readonly kind: "all" }
  /** Without a digest where the source does not know all of memory any more. */
  | { readonly kind: "served"; readonly ramDigest: string | null };

export type PageMessageOf<K extends PageMessage["kind"]> = Extract<PageMessage, { kind: K }>;

const KIND_OFFSET = 4;
const HEADER_BYTES = 8;
const SHORT_BYTES = 12;
const RUN_BYTES = 8;
const DIGEST_BYTES = 32;
const PAGES_END = 2 ** 32;

/** Whether a message of a page lane is one of these, and not a frame. */
export function isPageMessage(bytes: Buffer): boolean {
  return bytes.length >= HEADER_BYTES && bytes[KIND_OFFSET]! >= 128;
}

export function encodePageMessage(message: PageMessage): Buffer {
  const bytes = written(message);
  bytes.writeUInt32BE(crc32c(bytes.subarray(4)), 0);
  return bytes;
}

/** @throws ProtocolError when the bytes are anything but one well-formed page message */
export function decodePageMessage(bytes: Buffer): PageMessage {
  if (bytes.length < HEADER_BYTES) throw violation("page message shorter than its header");
  if (bytes.length > SHORT_BYTES + MISSING_RUNS_MAX * RUN_BYTES) {
    throw violation("page message too large");
  }
  if (crc32c(bytes.subarray(4)) !== bytes.readUInt32BE(0)) {
    throw new ProtocolError("a page message was damaged on its way (CRC32C)", {
      code: "frame-corrupt",
      sequence: "none",
    });
  }
  switch (bytes[KIND_OFFSET]) {
    case PageMessageKind.REQUEST:
      return requestOf(bytes);
    case PageMessageKind.PLACED:
      return placedOf(bytes);
    case PageMessageKind.MISSING:
      return missingOf(bytes);
    case PageMessageKind.SERVED:
      return servedOf(bytes);
    case PageMessageKind.ALL:
      return allOf(bytes);
    default:
      throw violation("page message of an unknown kind");
  }
}

function requestOf(bytes: Buffer): PageMessage {
  if (bytes.length !== SHORT_BYTES) throw violation("length of REQUEST");
  const message = {
    kind: "request",
    block: bytes.readUInt16BE(6),
    firstPage: bytes.readUInt32BE(8),
    pages: bytes.readUInt8(5),
  } as const;
  const broken = brokenRequest(message);
  if (broken !== null) throw violation(broken);
  return message;
}

function brokenRequest({ block, firstPage, pages }: PageMessageOf<"request">): string | null {
  if (block >= RAM_BLOCKS_MAX) return "block of REQUEST";
  if (pages === 0 || pages > REQUEST_PAGES_MAX) return "pages of REQUEST";
  return firstPage + pages > PAGES_END ? "end of REQUEST" : null;
}

function placedOf(bytes: Buffer): PageMessage {
  if (bytes.length !== SHORT_BYTES) throw violation("length of PLACED");
  const number = bytes.readUInt8(5);
  if (number !== PageLaneNumber.urgent && number !== PageLaneNumber.background) {
    throw violation("lane of PLACED");
  }
  if (bytes.readUInt16BE(6) !== 0) throw violation("reserved field of PLACED");
  const lane = number === PageLaneNumber.urgent ? "urgent" : "background";
  const message = { kind: "placed", lane, bytes: bytes.readUInt32BE(8) } as const;
  if (isBrokenPlaced(message)) throw violation("bytes of PLACED");
  return message;
}

function isBrokenPlaced({ bytes }: PageMessageOf<"placed">): boolean {
  return bytes === 0 || bytes > CREDIT_BYTES_MAX;
}

function missingOf(bytes: Buffer): PageMessage {
  if (bytes.length < SHORT_BYTES) throw violation("length of MISSING");
  const count = bytes.readUInt16BE(8);
  if (count > MISSING_RUNS_MAX) throw violation("run count of MISSING");
  if (bytes.length !== SHORT_BYTES + count * RUN_BYTES) throw violation("length of MISSING");
  if (bytes.readUInt16BE(10) !== 0) throw violation("reserved field of MISSING");
  const message = {
    kind: "missing",
    block: bytes.readUInt16BE(6),
    runs: Array.from({ length: count }, (_, run) => ({
      first: bytes.readUInt32BE(SHORT_BYTES + run * RUN_BYTES),
      count: bytes.readUInt32BE(SHORT_BYTES + run * RUN_BYTES + 4),
    })),
    last: flag(bytes.readUInt8(5), "last of MISSING"),
  } as const;
  const broken = brokenMissing(message);
  if (broken !== null) throw violation(broken);
  return message;
}

function brokenMissing({ block, runs, last }: PageMessageOf<"missing">): string | null {
  if (block >= RAM_BLOCKS_MAX) return "block of MISSING";
  if (runs.length > MISSING_RUNS_MAX) return "run count of MISSING";
  if (runs.length === 0 && !last) return "MISSING without runs";
  if (runs.length === 0 && block !== 0) return "block of MISSING without runs";
  let end = 0;
  for (const { first, count } of runs) {
    if (count === 0) return "empty run of MISSING";
    if (first < end) return "order of the runs of MISSING";
    end = first + count;
  }
  return end > PAGES_END ? "end of a run of MISSING" : null;
}

function servedOf(bytes: Buffer): PageMessage {
  const hasDigest = flag(bytes.readUInt8(5), "flag of SERVED");
  if (bytes.length !== HEADER_BYTES + (hasDigest ? DIGEST_BYTES : 0)) {
    throw violation("length of SERVED");
  }
  if (bytes.readUInt16BE(6) !== 0) throw violation("reserved field of SERVED");
  const ramDigest = hasDigest ? bytes.toString("hex", HEADER_BYTES) : null;
  return { kind: "served", ramDigest };
}

function allOf(bytes: Buffer): PageMessage {
  if (bytes.length !== HEADER_BYTES) throw violation("length of ALL");
  if (bytes[5] !== 0 || bytes.readUInt16BE(6) !== 0) throw violation("reserved field of ALL");
  return { kind: "all" };
}

function written(message: PageMessage): Buffer {
  switch (message.kind) {
    case "request": {
      const broken = brokenRequest(message);
      assert(broken === null, `a REQUEST that is sent would be accepted: ${broken}`);
      const bytes = blank(PageMessageKind.REQUEST, SHORT_BYTES, message.pages);
      bytes.writeUInt16BE(message.block, 6);
      bytes.writeUInt32BE(message.firstPage, 8);
      return bytes;
    }
    case "placed": {
      assert(!isBrokenPlaced(message), "a PLACED that is sent would be accepted");
      const bytes = blank(PageMessageKind.PLACED, SHORT_BYTES, PageLaneNumber[message.lane]);
      bytes.writeUInt32BE(message.bytes, 8);
      return bytes;
    }
    case "missing":
      return writtenMissing(message);
    case "all":
      return blank(PageMessageKind.ALL, HEADER_BYTES, 0);
    case "served": {
      const digest = message.ramDigest === null ? null : Buffer.from(message.ramDigest, "hex");
      assert(digest === null || digest.length === DIGEST_BYTES, "a digest is 64 hex digits");
      const bytes = HEADER_BYTES + (digest?.length ?? 0);
      const served = blank(PageMessageKind.SERVED, bytes, digest === null ? 0 : 1);
      digest?.copy(served, HEADER_BYTES);
      return served;
    }
    default:
      return unreachable(message);
  }
}

function writtenMissing(message: PageMessageOf<"missing">): Buffer {
  const broken = brokenMissing(message);
  assert(broken === null, `a MISSING that is sent would be accepted: ${broken}`);
  const { block, runs, last } = message;
  const length = SHORT_BYTES + runs.length * RUN_BYTES;
  const bytes = blank(PageMessageKind.MISSING, length, last ? 1 : 0);
  bytes.writeUInt16BE(block, 6);
  bytes.writeUInt16BE(runs.length, 8);
  let at = SHORT_BYTES;
  for (const { first, count } of runs) {
    bytes.writeUInt32BE(first, at);
    bytes.writeUInt32BE(count, at + 4);
    at += RUN_BYTES;
  }
  return bytes;
}

function blank(kind: PageMessageKind, length: number, fifth: number): Buffer {
  const bytes = Buffer.alloc(length);
  bytes[KIND_OFFSET] = kind;
  bytes[5] = fifth;
  return bytes;
}

function flag(value: number, field: string): boolean {
  if (value > 1) throw violation(field);
  return value === 1;
}

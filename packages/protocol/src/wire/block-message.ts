/**
 * What two agents say to each other about the units of a lazy disk, when the guest runs at the dest
 * already. One WebSocket message each, big-endian:
 *
 *    0 u32 crc32c   Castagnoli, over every byte behind this field
 *    4 u8  kind     BlockKind
 *    5 u8  detail   ASK: urgency · BLOCKS: content · VERDICT: verdict · others: 0
 *    6 u16 disk     index in the offer
 *    8 …   body     ASK: u32 first, u32 count
 *                   BLOCKS: u32 first, u32 count, u64 hash, data
 *                   KEPT: u32 runs, runs × (u32 first, u32 count), ascending and apart
 *                   END: 32 bytes digest · VERDICT: nothing
 *
 * A unit is what a disk is hashed in. Whether it lies inside its disk, and how much data is a whole
 * unit, is for whoever knows the disk to check. Data are views.
 */
import { crc32c } from "@node-rs/crc32";
import { assert } from "@vmferry/core";
import {
  ASK_UNITS_MAX,
  ASKED_UNITS_MAX,
  BLOCK_MESSAGE_BYTES_MAX,
  DISKS_MAX,
  KEPT_RUNS_MAX,
} from "./limits.ts";
import { ProtocolError, violation } from "./protocol-error.ts";

export const BlockKind = { ASK: 1, BLOCKS: 2, KEPT: 3, END: 4, VERDICT: 5 } as const;
export const Urgency = { URGENT: 1, BACKGROUND: 2 } as const;
export type Urgency = (typeof Urgency)[keyof typeof Urgency];
export const BlockContent = {
  RAW: 1,
  /** The unit as one zstd frame. */
  ZSTD: 2,
  /** Reads as zeros. */
  ZERO: 3,
  /** Reads as zeros and takes no space. */
  HOLE: 4,
  /** The source cannot read it. */
  UNREADABLE: 5,
} as const;
export type BlockContent = (typeof BlockContent)[keyof typeof BlockContent];

export { ASK_UNITS_MAX, ASKED_UNITS_MAX, BLOCK_MESSAGE_BYTES_MAX, KEPT_RUNS_MAX };

const HEADER_BYTES = 8;
const BLOCKS_HEADER_BYTES = 24;
const RUN_BYTES = 8;
const DIGEST_BYTES = 32;
const UNITS_MAX = 2 ** 32;

export interface UnitRun {
  readonly first: number;
  readonly count: number;
}

export interface BlocksMessage extends UnitRun {
  readonly kind: "blocks";
  readonly disk: number;
  readonly content: BlockContent;
  /** XXH64 of the unit with the migration's seed; 0 where there are no data. */
  readonly hash: bigint;
  readonly data: Buffer;
}

/** From dest to source. */
export type BlockQuestion =
  | ({ readonly kind: "ask"; readonly disk: number; readonly urgency: Urgency } & UnitRun)
  | { readonly kind: "kept"; readonly disk: number; readonly runs: readonly UnitRun[] }
  /** `digest`: 64 hex digits. */
  | { readonly kind: "end"; readonly disk: number; readonly digest: string };

/** From source to dest. */
export type BlockAnswer =
  BlocksMessage | { readonly kind: "verdict"; readonly disk: number; readonly equal: boolean };

export function encodeBlockMessage(message: BlockQuestion | BlockAnswer): Buffer {
  const bytes = Buffer.alloc(lengthOf(message));
  bytes.writeUInt16BE(message.disk, 6);
  switch (message.kind) {
    case "ask":
      putHead(bytes, BlockKind.ASK, message.urgency);
      putRun(bytes, HEADER_BYTES, message);
      break;
    case "blocks":
      putHead(bytes, BlockKind.BLOCKS, message.content);
      putRun(bytes, HEADER_BYTES, message);
      bytes.writeBigUInt64BE(message.hash, 16);
      message.data.copy(bytes, BLOCKS_HEADER_BYTES);
      break;
    case "kept":
      putHead(bytes, BlockKind.KEPT, 0);
      bytes.writeUInt32BE(message.runs.length, HEADER_BYTES);
      for (const [index, run] of message.runs.entries()) {
        putRun(bytes, HEADER_BYTES + 4 + index * RUN_BYTES, run);
      }
      break;
    case "end":
      putHead(bytes, BlockKind.END, 0);
      bytes.write(message.digest, HEADER_BYTES, "hex");
      break;
    case "verdict":
      putHead(bytes, BlockKind.VERDICT, message.equal ? 1 : 2);
      break;
  }
  bytes.writeUInt32BE(crc32c(bytes.subarray(4)), 0);
  const broken = brokenRule(bytes);
  assert(broken === null, `a message that is sent would be accepted: ${broken}`);
  return bytes;
}

/** Throws ProtocolError. */
export function decodeBlockQuestion(bytes: Buffer): BlockQuestion {
  const { kind, detail, disk } = openMessage(bytes);
  switch (kind) {
    case BlockKind.ASK:
      return { kind: "ask", disk, urgency: detail as Urgency, ...runAt(bytes, HEADER_BYTES) };
    case BlockKind.KEPT:
      return { kind: "kept", disk, runs: runsOf(bytes) };
    case BlockKind.END:
      return { kind: "end", disk, digest: bytes.toString("hex", HEADER_BYTES) };
    default:
      throw violation("block message of a source from a dest");
  }
}

/** Throws ProtocolError. */
export function decodeBlockAnswer(bytes: Buffer): BlockAnswer {
  const { kind, detail, disk } = openMessage(bytes);
  switch (kind) {
    case BlockKind.BLOCKS: {
      const content = detail as BlockContent;
      const hash = bytes.readBigUInt64BE(16);
      const data = bytes.subarray(BLOCKS_HEADER_BYTES);
      return { kind: "blocks", disk, content, hash, data, ...runAt(bytes, HEADER_BYTES) };
    }
    case BlockKind.VERDICT:
      return { kind: "verdict", disk, equal: detail === 1 };
    default:
      throw violation("block message of a dest from a source");
  }
}

function openMessage(bytes: Buffer): { kind: number; detail: number; disk: number } {
  if (bytes.length < HEADER_BYTES) throw violation("block message shorter than its header");
  if (bytes.length > BLOCK_MESSAGE_BYTES_MAX) throw violation("block message too large");
  if (crc32c(bytes.subarray(4)) !== bytes.readUInt32BE(0)) {
    throw new ProtocolError("a message about blocks was damaged on its way (CRC32C)", {
      code: "frame-corrupt",
      sequence: "",
    });
  }
  const broken = brokenRule(bytes);
  if (broken !== null) throw violation(broken);
  return { kind: bytes[4]!, detail: bytes[5]!, disk: bytes.readUInt16BE(6) };
}

/** Which rule the bytes behind the checksum break; null when they break none. */
function brokenRule(bytes: Buffer): string | null {
  const [kind, detail] = [bytes[4]!, bytes[5]!];
  if (bytes.readUInt16BE(6) >= DISKS_MAX) return "block message disk index";
  switch (kind) {
    case BlockKind.ASK:
      if (detail !== Urgency.URGENT && detail !== Urgency.BACKGROUND) return "ask urgency";
      if (bytes.length !== HEADER_BYTES + RUN_BYTES) return "ask length";
      return brokenRun(runAt(bytes, HEADER_BYTES));
    case BlockKind.BLOCKS:
      return bytes.length < BLOCKS_HEADER_BYTES ? "blocks length" : brokenBlocks(bytes, detail);
    case BlockKind.KEPT:
      return detail === 0 ? brokenKept(bytes) : "block message detail";
    case BlockKind.END:
      if (detail !== 0) return "block message detail";
      return bytes.length === HEADER_BYTES + DIGEST_BYTES ? null : "end length";
    case BlockKind.VERDICT:
      if (detail !== 1 && detail !== 2) return "verdict";
      return bytes.length === HEADER_BYTES ? null : "verdict length";
    default:
      return "block message kind";
  }
}

function brokenBlocks(bytes: Buffer, content: number): string | null {
  const dataBytes = bytes.length - BLOCKS_HEADER_BYTES;
  const run = runAt(bytes, HEADER_BYTES);
  const hash = bytes.readBigUInt64BE(16);
  if (content === BlockContent.RAW || content === BlockContent.ZSTD) {
    if (run.count !== 1) return "blocks count";
    if (hash === 0n) return "blocks hash";
    return dataBytes > 0 ? brokenRun(run) : "blocks without data";
  }
  if (content < BlockContent.ZERO || content > BlockContent.UNREADABLE) return "blocks content";
  if (hash !== 0n) return "blocks hash";
  return dataBytes === 0 ? brokenRun(run) : "blocks data length";
}

function brokenRun({ first, count }: UnitRun): string | null {
  if (count === 0 || count > ASK_UNITS_MAX) return "unit count";
  return first + count <= UNITS_MAX ? null : "unit beyond every disk";
}

function brokenKept(bytes: Buffer): string | null {
  if (bytes.length < HEADER_BYTES + 4) return "kept length";
  const runs = bytes.readUInt32BE(HEADER_BYTES);
  if (runs === 0 || runs > KEPT_RUNS_MAX) return "kept run count";
  if (bytes.length !== HEADER_BYTES + 4 + runs * RUN_BYTES) return "kept length";
  let end = 0;
  for (const { first, count } of runsOf(bytes)) {
    if (first < end || count === 0) return "kept runs out of order";
    end = first + count;
  }
  return end <= UNITS_MAX ? null : "unit beyond every disk";
}

function lengthOf(message: BlockQuestion | BlockAnswer): number {
  switch (message.kind) {
    case "ask":
      return HEADER_BYTES + RUN_BYTES;
    case "blocks":
      return BLOCKS_HEADER_BYTES + message.data.length;
    case "kept":
      return HEADER_BYTES + 4 + message.runs.length * RUN_BYTES;
    case "end":
      return HEADER_BYTES + DIGEST_BYTES;
    case "verdict":
      return HEADER_BYTES;
  }
}

function putHead(bytes: Buffer, kind: number, detail: number): void {
  bytes[4] = kind;
  bytes[5] = detail;
}

function putRun(bytes: Buffer, at: number, { first, count }: UnitRun): void {
  bytes.writeUInt32BE(first, at);
  bytes.writeUInt32BE(count, at + 4);
}

function runAt(bytes: Buffer, at: number): UnitRun {
  return { first: bytes.readUInt32BE(at), count: bytes.readUInt32BE(at + 4) };
}

function runsOf(bytes: Buffer): UnitRun[] {
  const runs = bytes.readUInt32BE(HEADER_BYTES);
  return Array.from({ length: runs }, (_, index) =>
    runAt(bytes, HEADER_BYTES + 4 + index * RUN_BYTES),
  );
}

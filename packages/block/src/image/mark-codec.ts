/**
 * The bytes of a partial mark, big-endian:
 *
 *    0 u8[8]  magic        "vmferryM"
 *    8 u32    version      1
 *   12 u32    state        MarkState
 *   16 u64    imageBytes
 *   24 u64    epoch        of the migration
 *   32 u32    blockBytes   of the image for each bit; the last block may be shorter
 *   36 u8[64] migrationId  ASCII, NUL behind it
 *  100 …      bitmap       bit 0 of byte 0 for the first block, set: it is present; the bits behind
 *                          the last block are zero
 *    … u32    crc32c       Castagnoli, over everything before
 */
import { crc32c } from "@node-rs/crc32";
import { assert } from "@vmferry/core";

/**
 * `left`: the guest went away with a newer content; the image is kept, and out of date.
 * `lazy`: the guest uses it through its agent, and a part of it is at the source; the present map
 * beside it says which, not the bitmap.
 */
export type MarkState = "filling" | "whole" | "left" | "lazy";

/** What a mark says of its image from its making to its end. */
export interface MarkSubject {
  readonly imageBytes: number;
  readonly blockBytes: number;
  /** 1 to 64 characters of printable ASCII. */
  readonly migrationId: string;
  readonly epoch: number;
}

export interface MarkContent extends MarkSubject {
  /** `whole` says that every block is present. */
  readonly state: MarkState;
  readonly bitmap: Uint8Array;
}

/** A 32 TiB image in blocks of 64 KiB. */
export const MARK_BYTES_MAX = 64 * 2 ** 20 + 1024;
export const MARK_HEADER_BYTES = 100;

const MAGIC = Buffer.from("vmferryM", "latin1");
const VERSION = 1;
const STATE_NUMBERS: Readonly<Record<MarkState, number>> = {
  filling: 1,
  whole: 2,
  left: 3,
  lazy: 4,
};
const MIGRATION_ID_AT = 36;
const MIGRATION_ID_BYTES_MAX = 64;
const CRC_BYTES = 4;
const MIGRATION_ID = /^[\x21-\x7e]{1,64}$/;

/** Zero for what no mark could speak of. */
export function bitmapBytesOf({
  imageBytes,
  blockBytes,
}: Pick<MarkSubject, "imageBytes" | "blockBytes">): number {
  if (!Number.isSafeInteger(imageBytes) || imageBytes <= 0 || blockBytes <= 0) return 0;
  return Math.ceil(Math.ceil(imageBytes / blockBytes) / 8);
}

/** A bit for each block, and none behind the last. */
export function fullBitmap(subject: Pick<MarkSubject, "imageBytes" | "blockBytes">): Buffer {
  const bitmap = Buffer.alloc(bitmapBytesOf(subject), 0xff);
  const lastBits = Math.ceil(subject.imageBytes / subject.blockBytes) % 8;
  if (lastBits > 0) bitmap[bitmap.length - 1] = 2 ** lastBits - 1;
  return bitmap;
}

export function markBytesOf(sizes: Pick<MarkSubject, "imageBytes" | "blockBytes">): number {
  return MARK_HEADER_BYTES + bitmapBytesOf(sizes) + CRC_BYTES;
}

export function encodeMark(content: MarkContent): Buffer {
  const { imageBytes, blockBytes, migrationId, epoch, state, bitmap } = content;
  assert(bitmap.length > 0 && bitmap.length === bitmapBytesOf(content), "a bit for each block");
  assert(markBytesOf(content) <= MARK_BYTES_MAX, "a mark stays within its limit");
  assert(Number.isInteger(blockBytes) && blockBytes < 2 ** 32, "a block's size is a whole u32");
  assert(Number.isSafeInteger(epoch) && epoch >= 0, "an epoch is a whole number");
  assert(MIGRATION_ID.test(migrationId), "a migration's id is 1 to 64 printable characters");
  assert(isBitmapPossible(content), "no bit behind the last block, and a whole image has them all");
  const mark = Buffer.alloc(markBytesOf(content));
  MAGIC.copy(mark);
  mark.writeUInt32BE(VERSION, 8);
  mark.writeUInt32BE(STATE_NUMBERS[state], 12);
  mark.writeBigUInt64BE(BigInt(imageBytes), 16);
  mark.writeBigUInt64BE(BigInt(epoch), 24);
  mark.writeUInt32BE(blockBytes, 32);
  mark.write(migrationId, MIGRATION_ID_AT, "latin1");
  mark.set(bitmap, MARK_HEADER_BYTES);
  const crcAt = mark.length - CRC_BYTES;
  mark.writeUInt32BE(crc32c(mark.subarray(0, crcAt)), crcAt);
  return mark;
}

/** How long a mark is by its header; null for what is not the header of one. */
export function readMarkBytes(header: Buffer): number | null {
  if (header.length < MARK_HEADER_BYTES) return null;
  if (!header.subarray(0, MAGIC.length).equals(MAGIC)) return null;
  if (header.readUInt32BE(8) !== VERSION) return null;
  const imageBytes = Number(header.readBigUInt64BE(16));
  const sizes = { imageBytes, blockBytes: header.readUInt32BE(32) };
  if (bitmapBytesOf(sizes) === 0) return null;
  const bytes = markBytesOf(sizes);
  return bytes <= MARK_BYTES_MAX ? bytes : null;
}

/** Null for a damaged mark. The bitmap is a view. */
export function decodeMark(mark: Buffer): MarkContent | null {
  if (mark.length !== readMarkBytes(mark)) return null;
  const crcAt = mark.length - CRC_BYTES;
  if (crc32c(mark.subarray(0, crcAt)) !== mark.readUInt32BE(crcAt)) return null;
  const state = stateOf(mark.readUInt32BE(12));
  const epoch = Number(mark.readBigUInt64BE(24));
  const idEnd = MIGRATION_ID_AT + MIGRATION_ID_BYTES_MAX;
  const migrationId = mark.toString("latin1", MIGRATION_ID_AT, idEnd).replace(/\0+$/, "");
  if (state === null || !Number.isSafeInteger(epoch) || !MIGRATION_ID.test(migrationId)) {
    return null;
  }
  const content = {
    imageBytes: Number(mark.readBigUInt64BE(16)),
    blockBytes: mark.readUInt32BE(32),
    migrationId,
    epoch,
    state,
    bitmap: mark.subarray(MARK_HEADER_BYTES, crcAt),
  };
  return isBitmapPossible(content) ? content : null;
}

function stateOf(number: number): MarkState | null {
  const states = Object.keys(STATE_NUMBERS) as MarkState[];
  return states.find((state) => STATE_NUMBERS[state] === number) ?? null;
}

function isBitmapPossible({ imageBytes, blockBytes, state, bitmap }: MarkContent): boolean {
  const lastBits = Math.ceil(imageBytes / blockBytes) % 8;
  const lastFull = lastBits === 0 ? 0xff : 2 ** lastBits - 1;
  const last = bitmap[bitmap.length - 1]!;
  if ((last & ~lastFull) !== 0) return false;
  if (state !== "whole") return true;
  return last === lastFull && bitmap.subarray(0, -1).every((byte) => byte === 0xff);
}

/**
 * The extent table of a DISK frame: what the frame says about one disk, in the order in which it
 * holds. Entries of 16 bytes, big-endian, behind the frame's header:
 *
 *    0 u64 offset     in bytes, from the start of the disk
 *    8 u32 length     in bytes, not 0; DATA: as many bytes of the frame's data
 *   12 u8  operation  DiskOperation
 *   13 u8  × 3        0
 *
 * All frames of a disk travel over one connection, so a later one is always newer.
 */
import { assert } from "@vmferry/core";
import {
  EXTENT_BYTES,
  EXTENT_LENGTH_MAX,
  FRAME_DISK_BYTES_MAX,
  FRAME_EXTENTS_MAX,
  FRAME_HEADER_BYTES,
} from "./limits.ts";
import { FrameEncoding, type FrameHeader } from "./bulk-frame.ts";
import { violation } from "./protocol-error.ts";

export const DiskOperation = {
  DATA: 1,
  /** Reads as zeros; the space stays taken. */
  ZERO: 2,
  /** Reads as zeros; the space may be given back. */
  TRIM: 3,
} as const;
export type DiskOperation = (typeof DiskOperation)[keyof typeof DiskOperation];

export interface DiskExtent {
  readonly operation: DiskOperation;
  readonly offset: number;
  readonly length: number;
}

/** Writes entry `index` of the table of a frame that begins at `frameStart`. */
export function putExtent(
  buffer: Buffer,
  { frameStart, index }: { readonly frameStart: number; readonly index: number },
  { operation, offset, length }: DiskExtent,
): void {
  assert(index < FRAME_EXTENTS_MAX, "an extent has its place in the table");
  assert(length > 0 && length <= EXTENT_LENGTH_MAX, "an extent that is sent would be accepted");
  const at = frameStart + FRAME_HEADER_BYTES + index * EXTENT_BYTES;
  buffer.writeUInt32BE(Math.floor(offset / 2 ** 32), at);
  buffer.writeUInt32BE(offset % 2 ** 32, at + 4);
  buffer.writeUInt32BE(length, at + 8);
  buffer.writeUInt32BE(operation * 2 ** 24, at + 12);
}

/** The extent table of an opened DISK frame, checked against the disk that it writes to. */
export class ExtentTable {
  #frame: Buffer = Buffer.alloc(0);
  readonly #order = new Float64Array(FRAME_EXTENTS_MAX);
  count = 0;
  /** Bytes that the frame carries for its DATA extents. */
  dataBytes = 0;
  /** No byte of the disk is in two extents: then their order does not matter. */
  disjoint = true;

  open(frame: Buffer, header: FrameHeader, diskBytes: number): void {
    this.#frame = frame;
    this.count = header.runs;
    this.dataBytes = 0;
    for (let i = 0; i < this.count; i++) {
      const length = this.length(i);
      if (length === 0 || length > EXTENT_LENGTH_MAX) throw violation("extent length");
      if (this.offset(i) + length > diskBytes) throw violation("extent outside its disk");
      if (this.operation(i) === DiskOperation.DATA) this.dataBytes += length;
    }
    if (this.dataBytes > FRAME_DISK_BYTES_MAX) throw violation("frame extent data length");
    const present = frame.length - this.dataOffset;
    if (header.encoding === FrameEncoding.RAW && present !== this.dataBytes) {
      throw violation("extents and data disagree");
    }
    if (header.encoding === FrameEncoding.ZSTD && this.dataBytes === 0) {
      throw violation("compressed frame without data");
    }
    this.disjoint = this.#isDisjoint();
  }

  /** Where the data begins in the frame. */
  get dataOffset(): number {
    return FRAME_HEADER_BYTES + this.count * EXTENT_BYTES;
  }

  offset(index: number): number {
    const at = this.#at(index);
    return this.#frame.readUInt32BE(at) * 2 ** 32 + this.#frame.readUInt32BE(at + 4);
  }

  length(index: number): number {
    return this.#frame.readUInt32BE(this.#at(index) + 8);
  }

  operation(index: number): DiskOperation {
    const word = this.#frame.readUInt32BE(this.#at(index) + 12);
    const operation = word / 2 ** 24;
    if (operation !== 1 && operation !== 2 && operation !== 3) throw violation("extent operation");
    return operation;
  }

  extent(index: number): DiskExtent {
    return {
      operation: this.operation(index),
      offset: this.offset(index),
      length: this.length(index),
    };
  }

  #isDisjoint(): boolean {
    const order = this.#order.subarray(0, this.count);
    for (let i = 0; i < this.count; i++) order[i] = this.offset(i);
    order.sort();
    // With equal offsets the lengths do not matter: they overlap.
    const lengths = new Map<number, number>();
    for (let i = 0; i < this.count; i++) lengths.set(this.offset(i), this.length(i));
    if (lengths.size !== this.count) return false;
    let end = 0;
    for (const offset of order) {
      if (offset < end) return false;
      end = offset + lengths.get(offset)!;
    }
    return true;
  }

  #at(index: number): number {
    return FRAME_HEADER_BYTES + index * EXTENT_BYTES;
  }
}

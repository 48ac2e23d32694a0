/**
 * Bulk frames: one WebSocket message each, big-endian.
 *
 *    0 u32 crc32c     Castagnoli, over every byte after this field
 *    4 u8  version    2
 *    5 u8  kind       FrameKind
 *    6 u8  encoding   FrameEncoding of what follows the header
 *    7 u8  reserved   0
 *    8 u32 pass       frames of a pass may overtake each other, passes may not
 *   12 u32 payload    bytes after the header
 *   16 u64 sequence   counts the frames of one connection from 0
 *   24 u16 block      PAGES, MISSING: index of the RAM block · DISK: index of the disk
 *   26 u16 runs       PAGES, MISSING: entries of the run table · DISK: of the extent table
 *   28 u32 reserved   0
 *   32 …   payload    STREAM: bytes of QEMU's stream · PAGES: run table, then the data pages in
 *                     its order · DISK: extent table, then the data of its extents in its
 *                     order (disk-frame.ts) · MISSING: run table · POSTCOPY: u32 bytes of device
 *                     state · BARRIER, RAM_END, DISK_END: nothing
 *
 * A run is u32 first page, u32 (bit 31: zero pages, no data | 31 bits: count). The runs of a frame
 * come in any order and name no page twice. Writing fills a caller's buffer in place and reading
 * returns views: no copy and no object per page.
 */
import { crc32c } from "@node-rs/crc32";
import { assert } from "@vmferry/core";
import {
  DEVICE_STATE_BYTES_MAX,
  DISKS_MAX,
  EXTENT_BYTES,
  FRAME_BYTES_MAX,
  FRAME_DISK_BYTES_MAX,
  FRAME_EXTENTS_MAX,
  FRAME_HEADER_BYTES,
  FRAME_PAGES_MAX,
  FRAME_RUNS_MAX,
  FRAME_STREAM_BYTES_MAX,
  PAGE_BYTES,
  RAM_BLOCKS_MAX,
  RUN_BYTES,
} from "./limits.ts";
import { ProtocolError, violation } from "./protocol-error.ts";

export const FrameKind = {
  /** Bytes of QEMU's stream that the dest's QEMU sees as they are. */
  STREAM: 1,
  PAGES: 2,
  /** The sender's pass is over on this connection. */
  BARRIER: 3,
  /** The RAM section ends here; device state follows as STREAM. */
  RAM_END: 4,
  /** What a disk has to hold, or no longer has to. Passes do not concern it. */
  DISK: 5,
  /** No DISK frame follows on this connection. */
  DISK_END: 6,
  /** Pages that the dest does not have when the guest is handed over, or not any more. */
  MISSING: 7,
  /** RAM ends here as far as it comes before the hand-over; all of device state follows as STREAM. */
  POSTCOPY: 8,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

export const FrameEncoding = {
  RAW: 1,
  /** PAGES and DISK, with feature `zstd`: the data, not the table before it, as one zstd frame. */
  ZSTD: 2,
} as const;
export type FrameEncoding = (typeof FrameEncoding)[keyof typeof FrameEncoding];

const FRAME_VERSION = 2;
export const ZERO_RUN = 0x8000_0000;
const RUN_COUNT_MASK = 0x7fff_ffff;
/** Payload of a POSTCOPY frame. */
const POSTCOPY_BYTES = 4;

export interface FrameHeader {
  readonly kind: FrameKind;
  readonly encoding: FrameEncoding;
  readonly pass: number;
  readonly sequence: number;
  readonly block: number;
  readonly runs: number;
}

/** Fills in the header of `frame`, whose payload is in place behind it, and seals it. */
export function sealFrame(frame: Buffer, header: FrameHeader): void {
  assert(frame.length <= FRAME_BYTES_MAX, "a frame stays within its limit");
  const broken = brokenShape(header, frame.length - FRAME_HEADER_BYTES);
  assert(broken === null, `a frame that is sent would be accepted: ${broken}`);
  frame[4] = FRAME_VERSION;
  frame[5] = header.kind;
  frame[6] = header.encoding;
  frame[7] = 0;
  frame.writeUInt32BE(header.pass, 8);
  frame.writeUInt32BE(frame.length - FRAME_HEADER_BYTES, 12);
  frame.writeUInt32BE(Math.floor(header.sequence / 2 ** 32), 16);
  frame.writeUInt32BE(header.sequence % 2 ** 32, 20);
  frame.writeUInt16BE(header.block, 24);
  frame.writeUInt16BE(header.runs, 26);
  frame.writeUInt32BE(0, 28);
  frame.writeUInt32BE(crc32c(frame.subarray(4)), 0);
}

/** Does the dest owe the source credit for a frame of this kind? */
export function costsCredit(kind: FrameKind): boolean {
  switch (kind) {
    case FrameKind.STREAM:
    case FrameKind.PAGES:
    case FrameKind.DISK:
    case FrameKind.MISSING:
      return true;
    case FrameKind.BARRIER:
    case FrameKind.RAM_END:
    case FrameKind.DISK_END:
    case FrameKind.POSTCOPY:
      return false;
  }
}

/** Checks everything about the frame but what its runs mean. */
export function openFrame(frame: Buffer): FrameHeader {
  if (frame.length < FRAME_HEADER_BYTES) throw violation("frame shorter than its header");
  if (frame.length > FRAME_BYTES_MAX) throw violation("frame too large");
  const sequence = frame.readUInt32BE(16) * 2 ** 32 + frame.readUInt32BE(20);
  if (crc32c(frame.subarray(4)) !== frame.readUInt32BE(0)) {
    throw new ProtocolError("a frame was damaged on its way (CRC32C)", {
      code: "frame-corrupt",
      sequence: sequence.toString(16),
    });
  }
  if (frame[4] !== FRAME_VERSION) throw violation("frame version");
  const payloadBytes = frame.readUInt32BE(12);
  if (payloadBytes !== frame.length - FRAME_HEADER_BYTES) throw violation("frame payload length");
  if (frame[7] !== 0 || frame.readUInt32BE(28) !== 0) throw violation("frame reserved field");
  if (sequence > Number.MAX_SAFE_INTEGER) throw violation("frame sequence");
  const header = {
    kind: frameKind(frame[5]!),
    encoding: frameEncoding(frame[6]!),
    pass: frame.readUInt32BE(8),
    sequence,
    block: frame.readUInt16BE(24),
    runs: frame.readUInt16BE(26),
  };
  const broken = brokenShape(header, payloadBytes);
  if (broken !== null) throw violation(broken);
  return header;
}

/** Which rule a header breaks together with its payload's length; null when it breaks none. */
function brokenShape(header: FrameHeader, payloadBytes: number): string | null {
  if (header.kind === FrameKind.PAGES) {
    if (header.runs === 0 || header.runs > FRAME_RUNS_MAX) return "frame run count";
    if (header.block >= RAM_BLOCKS_MAX) return "frame block index";
    const dataBytes = payloadBytes - header.runs * RUN_BYTES;
    // How much it has to be is the run table's to say, and for raw data it is checked against it.
    const fits = dataBytes >= 0 && dataBytes <= FRAME_PAGES_MAX * PAGE_BYTES;
    return fits ? null : "frame page data length";
  }
  if (header.kind === FrameKind.DISK) {
    if (header.runs === 0 || header.runs > FRAME_EXTENTS_MAX) return "frame extent count";
    if (header.block >= DISKS_MAX) return "frame disk index";
    if (header.pass !== 0) return "frame field without a meaning";
    const dataBytes = payloadBytes - header.runs * EXTENT_BYTES;
    const fits = dataBytes >= 0 && dataBytes <= FRAME_DISK_BYTES_MAX;
    return fits ? null : "frame extent data length";
  }
  if (header.encoding !== FrameEncoding.RAW) return "frame encoding of its kind";
  if (header.kind === FrameKind.MISSING) {
    if (header.runs === 0 || header.runs > FRAME_RUNS_MAX) return "frame run count";
    if (header.block >= RAM_BLOCKS_MAX) return "frame block index";
    return payloadBytes === header.runs * RUN_BYTES ? null : "frame run table length";
  }
  if (header.kind === FrameKind.DISK_END && header.pass !== 0) {
    return "frame field without a meaning";
  }
  if (header.runs !== 0 || header.block !== 0) return "frame field without a meaning";
  if (header.kind === FrameKind.POSTCOPY) {
    return payloadBytes === POSTCOPY_BYTES ? null : "frame payload length of its kind";
  }
  const bytesMax = header.kind === FrameKind.STREAM ? FRAME_STREAM_BYTES_MAX : 0;
  return payloadBytes < 0 || payloadBytes > bytesMax
    ? "frame payload too large for its kind"
    : null;
}

/** How much device state an opened POSTCOPY frame announces. */
export function deviceStateBytesOf(frame: Buffer): number {
  const bytes = frame.readUInt32BE(FRAME_HEADER_BYTES);
  if (bytes === 0 || bytes > DEVICE_STATE_BYTES_MAX) throw violation("length of device state");
  return bytes;
}

/** The run table of an opened PAGES or MISSING frame, checked against the block that it names. */
export class RunTable {
  #frame: Buffer = Buffer.alloc(0);
  readonly #order = new Float64Array(FRAME_RUNS_MAX);
  count = 0;
  /** Pages that the frame carries data for. */
  dataPages = 0;

  /** @param blockPages pages of the block that the frame names */
  open(frame: Buffer, header: FrameHeader, blockPages: number): void {
    this.#frame = frame;
    this.count = header.runs;
    this.dataPages = 0;
    for (let i = 0; i < this.count; i++) {
      const pages = this.pages(i);
      if (pages === 0) throw violation("empty run");
      if (this.first(i) + pages > blockPages) throw violation("run outside its block");
      if (!this.zero(i)) this.dataPages += pages;
    }
    if (header.kind === FrameKind.MISSING) {
      // A zero run there would be a page that is known and missing at once.
      if (this.dataPages !== this.allPages) throw violation("run of missing pages with a flag");
      if (this.#namesPageTwice()) throw violation("runs overlap");
      return;
    }
    const dataBytes = this.dataPages * PAGE_BYTES;
    if (this.dataPages > FRAME_PAGES_MAX) throw violation("frame page data length");
    const isRaw = header.encoding === FrameEncoding.RAW;
    if (isRaw && frame.length - this.dataOffset !== dataBytes) {
      throw violation("runs and data disagree");
    }
    if (this.#namesPageTwice()) throw violation("runs overlap");
  }

  /** Where the data pages begin in the frame. */
  get dataOffset(): number {
    return FRAME_HEADER_BYTES + this.count * RUN_BYTES;
  }

  first(run: number): number {
    return this.#frame.readUInt32BE(FRAME_HEADER_BYTES + run * RUN_BYTES);
  }

  pages(run: number): number {
    return this.#word(run) & RUN_COUNT_MASK;
  }

  zero(run: number): boolean {
    return this.#word(run) >= ZERO_RUN;
  }

  /** Those of zeros as well. */
  get allPages(): number {
    let pages = 0;
    for (let run = 0; run < this.count; run++) pages += this.pages(run);
    return pages;
  }

  /**
   * Zero pages and data of one frame reach QEMU in two writes. If a page were in both, the digest
   * could cover the one and QEMU keep the other.
   */
  #namesPageTwice(): boolean {
    let end = 0;
    let run = 0;
    while (run < this.count && this.first(run) >= end) {
      end = this.first(run) + this.pages(run);
      run++;
    }
    if (run === this.count) return false;
    // Not in ascending order: sort by first page, with the run's index in the low bits.
    const order = this.#order.subarray(0, this.count);
    for (let i = 0; i < this.count; i++) order[i] = this.first(i) * FRAME_RUNS_MAX + i;
    order.sort();
    end = 0;
    for (const place of order) {
      const first = Math.floor(place / FRAME_RUNS_MAX);
      if (first < end) return true;
      end = first + this.pages(place % FRAME_RUNS_MAX);
    }
    return false;
  }

  #word(run: number): number {
    return this.#frame.readUInt32BE(FRAME_HEADER_BYTES + run * RUN_BYTES + 4);
  }
}

function frameKind(value: number): FrameKind {
  if (value < FrameKind.STREAM || value > FrameKind.POSTCOPY) throw violation("frame kind");
  return value as FrameKind;
}

function frameEncoding(value: number): FrameEncoding {
  if (value !== FrameEncoding.RAW && value !== FrameEncoding.ZSTD) {
    throw violation("frame encoding");
  }
  return value;
}

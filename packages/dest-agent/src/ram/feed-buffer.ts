/**
 * Pages on their way into QEMU, already in the form of a RAM section, so that one write takes up
 * to 64 pages:
 *
 *   [ head-room: section header + first page header, right-aligned ][ page 0 ]
 *   [ page header ][ page 1 ] … [ page header ][ page n ][ end of section ]
 *
 * Every page has its fixed place, so the views are made once and none is made per page.
 */
import { limits } from "@vmferry/protocol";
import type { RamEncoder } from "@vmferry/qemu";

const { FRAME_PAGES_MAX, PAGE_BYTES } = limits;
/** Section header, u64 address, length byte and up to 255 bytes of block name. */
const HEADROOM_BYTES = 512;
/** What the encoder writes before a page of the same block: u64 address and flags. */
const PAGE_HEADER_BYTES = 8;
const STRIDE_BYTES = PAGE_HEADER_BYTES + PAGE_BYTES;
const TAIL_BYTES = 32;

export class FeedBuffer {
  readonly slots: readonly Buffer[];
  readonly #buffer = Buffer.allocUnsafeSlow(
    HEADROOM_BYTES + FRAME_PAGES_MAX * STRIDE_BYTES + TAIL_BYTES,
  );
  #encoder: RamEncoder | null = null;
  #block = 0;
  #pages = 0;
  #start = 0;

  constructor() {
    this.slots = Array.from({ length: FRAME_PAGES_MAX }, (_, slot) => {
      const start = pageOffset(slot);
      return this.#buffer.subarray(start, start + PAGE_BYTES);
    });
  }

  get pages(): number {
    return this.#pages;
  }

  /** Begins a section of pages of `block`. */
  open(encoder: RamEncoder, block: number): void {
    this.#encoder = encoder;
    this.#block = block;
    this.#pages = 0;
  }

  /** Takes one page from frame[offset] and returns its place. */
  add(page: number, frame: Buffer, offset: number): Buffer {
    const slot = this.#pages++;
    const at = pageOffset(slot);
    if (slot === 0) this.#writeHead(page);
    else this.#encoder!.pageHeader(this.#buffer, at - PAGE_HEADER_BYTES, this.#block, page);
    frame.copy(this.#buffer, at, offset, offset + PAGE_BYTES);
    return this.slots[slot]!;
  }

  /** The section as one view, valid until `open` is called again. */
  finish(): Buffer {
    const end = this.#encoder!.endPart(this.#buffer, pageOffset(this.#pages - 1) + PAGE_BYTES);
    return this.#buffer.subarray(this.#start, end);
  }

  /** Writes section and page header so that they end where the first page begins. */
  #writeHead(page: number): void {
    const encoder = this.#encoder!;
    encoder.forgetBlock();
    const at = encoder.beginPart(this.#buffer, 0);
    const bytes = encoder.pageHeader(this.#buffer, at, this.#block, page);
    this.#start = pageOffset(0) - bytes;
    this.#buffer.copyWithin(this.#start, 0, bytes);
  }
}

function pageOffset(slot: number): number {
  return HEADROOM_BYTES + slot * STRIDE_BYTES;
}

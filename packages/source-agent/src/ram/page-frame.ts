/**
 * One bulk frame of pages under construction. Pages are copied once, from QEMU's socket buffer to
 * their final place; header and run table are written right in front of them when it is sealed.
 *
 *   [ head-room: header + run table, right-aligned ][ page 0 ][ page 1 ] …
 */
import { assert } from "@vmferry/core";
import { limits, ZERO_RUN } from "@vmferry/protocol";

const { FRAME_HEADER_BYTES, FRAME_PAGES_MAX, FRAME_RUNS_MAX, PAGE_BYTES, RUN_BYTES } = limits;
const HEADROOM_BYTES = FRAME_HEADER_BYTES + FRAME_RUNS_MAX * RUN_BYTES;

export class PageFrame {
  /** Views of the page places, made once: the pool reuses frames, so none is made per page. */
  readonly slots: readonly Buffer[];
  readonly #buffer = Buffer.allocUnsafeSlow(HEADROOM_BYTES + FRAME_PAGES_MAX * PAGE_BYTES);
  readonly #firsts = new Uint32Array(FRAME_RUNS_MAX);
  readonly #counts = new Uint32Array(FRAME_RUNS_MAX);
  #runs = 0;
  #dataPages = 0;
  block = 0;

  constructor() {
    this.slots = Array.from({ length: FRAME_PAGES_MAX }, (_, slot) => {
      const start = HEADROOM_BYTES + slot * PAGE_BYTES;
      return this.#buffer.subarray(start, start + PAGE_BYTES);
    });
  }

  get runs(): number {
    return this.#runs;
  }

  get dataPages(): number {
    return this.#dataPages;
  }

  get empty(): boolean {
    return this.#runs === 0;
  }

  get full(): boolean {
    return this.#dataPages === FRAME_PAGES_MAX || this.#runs === FRAME_RUNS_MAX;
  }

  reset(block: number): void {
    this.block = block;
    this.#runs = 0;
    this.#dataPages = 0;
  }

  /** Where the next data page goes. */
  get nextSlot(): Buffer {
    return this.slots[this.#dataPages]!;
  }

  /** The places of `pages` data pages from a slot on, as one. */
  span(slot: number, pages: number): Buffer {
    assert(slot + pages <= FRAME_PAGES_MAX, "so many pages have room in the frame");
    const start = HEADROOM_BYTES + slot * PAGE_BYTES;
    return this.#buffer.subarray(start, start + pages * PAGE_BYTES);
  }

  /** The page in `nextSlot` belongs to the frame. */
  addData(page: number): void {
    assert(!this.full, "a full frame takes no page");
    this.#dataPages++;
    this.#extend(page, 0);
  }

  addZero(page: number): void {
    assert(!this.full, "a full frame takes no page");
    this.#extend(page, ZERO_RUN);
  }

  /** Header place, run table and data as one view, ready for `sealFrame`. */
  finish(): Buffer {
    const start = HEADROOM_BYTES - FRAME_HEADER_BYTES - this.#runs * RUN_BYTES;
    let at = start + FRAME_HEADER_BYTES;
    for (let run = 0; run < this.#runs; run++) {
      this.#buffer.writeUInt32BE(this.#firsts[run]!, at);
      this.#buffer.writeUInt32BE(this.#counts[run]!, at + 4);
      at += RUN_BYTES;
    }
    return this.#buffer.subarray(start, HEADROOM_BYTES + this.#dataPages * PAGE_BYTES);
  }

  #extend(page: number, kind: number): void {
    const last = this.#runs - 1;
    if (last >= 0) {
      const word = this.#counts[last]!;
      const count = word & ~ZERO_RUN;
      const sameKind = word >= ZERO_RUN === kind >= ZERO_RUN;
      if (sameKind && this.#firsts[last]! + count === page) {
        this.#counts[last] = word + 1;
        return;
      }
    }
    this.#firsts[this.#runs] = page;
    this.#counts[this.#runs] = (kind + 1) >>> 0;
    this.#runs++;
  }
}

/**
 * Pages from anywhere in a store, with the place of each, in memory that two threads share: one fills
 * it, hands it over, and does not touch it until the other has written it.
 */

/** As in the protocol's limits, which are not imported: the writer's thread is to start at once. */
export const BATCH_PAGE_BYTES = 4096;
const PAGES_MAX = 64;
const PLACE_BYTES = 4;
/** In front of the pages: their number, then the place of each. */
const HEAD_BYTES = PLACE_BYTES * (1 + PAGES_MAX);

/** Pages that follow each other in the batch as well as in the store. */
interface PageSpan {
  /** The place of the first. */
  readonly place: number;
  readonly bytes: Buffer;
}

export class PageBatch {
  readonly memory: SharedArrayBuffer;
  readonly #head: Uint32Array;
  readonly #pages: Buffer;

  constructor(memory = new SharedArrayBuffer(HEAD_BYTES + PAGES_MAX * BATCH_PAGE_BYTES)) {
    this.memory = memory;
    this.#head = new Uint32Array(memory, 0, 1 + PAGES_MAX);
    this.#pages = Buffer.from(memory, HEAD_BYTES);
  }

  get isFull(): boolean {
    return this.#head[0] === PAGES_MAX;
  }

  add(place: number, source: Buffer, offset: number): void {
    const count = this.#head[0]!;
    if (count === PAGES_MAX) throw new RangeError("the batch of pages is full");
    source.copy(this.#pages, count * BATCH_PAGE_BYTES, offset, offset + BATCH_PAGE_BYTES);
    this.#head[1 + count] = place;
    this.#head[0] = count + 1;
  }

  /** In the order in which they were added. */
  *spans(): Generator<PageSpan> {
    const count = this.#head[0]!;
    for (let first = 0, end = 1; first < count; first = end++) {
      const place = this.#head[1 + first]!;
      while (end < count && this.#head[1 + end] === place + end - first) end++;
      yield {
        place,
        bytes: this.#pages.subarray(first * BATCH_PAGE_BYTES, end * BATCH_PAGE_BYTES),
      };
    }
  }

  empty(): this {
    this.#head[0] = 0;
    return this;
  }
}

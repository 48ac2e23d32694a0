/**
 * A set of pages of a guest's RAM blocks: which are missing at the dest, which are still to be sent.
 * One bit a page, so that it is 32 KiB a GiB of guest; runs come out in ascending order.
 */
import { assert, Bitmap } from "@vmferry/core";
import { limits } from "@vmferry/protocol";

const { PAGE_BYTES } = limits;

/** Consecutive pages of one block. */
export interface PageRun {
  readonly block: number;
  readonly first: number;
  readonly count: number;
}

export class PageSet {
  /** Pages of each block. */
  readonly blockPages: readonly number[];
  readonly #blocks: readonly Bitmap[];
  #count = 0;

  /** Empty. */
  constructor(blocks: readonly { readonly lengthBytes: number }[]) {
    this.blockPages = blocks.map(({ lengthBytes }) => lengthBytes / PAGE_BYTES);
    this.#blocks = this.blockPages.map((pages) => new Bitmap(pages));
  }

  /** Pages in the set. */
  get count(): number {
    return this.#count;
  }

  has(block: number, page: number): boolean {
    return this.#blocks[block]!.has(page);
  }

  /** Tells whether it was not in the set before. */
  add(block: number, page: number): boolean {
    if (this.#blocks[block]!.testAndSet(page)) return false;
    this.#count++;
    return true;
  }

  /** What is in a set of the same blocks. */
  addAll(other: PageSet): void {
    this.#count = 0;
    for (const [block, bitmap] of this.#blocks.entries()) {
      bitmap.setAllOf(other.#blocks[block]!);
      this.#count += bitmap.count();
    }
  }

  /** Tells whether it was in the set. */
  remove(block: number, page: number): boolean {
    const bitmap = this.#blocks[block]!;
    if (!bitmap.has(page)) return false;
    bitmap.clear(page);
    this.#count--;
    return true;
  }

  clear(): void {
    for (const bitmap of this.#blocks) bitmap.clearAll();
    this.#count = 0;
  }

  /** Does a block of that index have all of these pages? */
  covers({ block, first, count }: PageRun): boolean {
    const pages = this.blockPages[block];
    return pages !== undefined && count > 0 && first >= 0 && first + count <= pages;
  }

  /** The first run at or behind a page, of at most `countMax` pages of its block; null at the end of RAM. */
  next(block: number, page: number, countMax: number): PageRun | null {
    assert(countMax > 0, "a run has pages");
    for (let at = block; at < this.#blocks.length; at++) {
      const first = this.#blocks[at]!.nextSet(at === block ? page : 0);
      if (first === null) continue;
      return { block: at, first, count: this.#runLength(at, first, countMax) };
    }
    return null;
  }

  /** Every run, each of at most `countMax` pages. */
  *runs(countMax: number): Generator<PageRun> {
    let run = this.next(0, 0, countMax);
    while (run !== null) {
      yield run;
      const end = run.first + run.count;
      run = this.next(run.block, end, countMax);
    }
  }

  #runLength(block: number, first: number, countMax: number): number {
    const bitmap = this.#blocks[block]!;
    const end = Math.min(first + countMax, this.blockPages[block]!);
    let page = first + 1;
    while (page < end && bitmap.has(page)) page++;
    return page - first;
  }
}

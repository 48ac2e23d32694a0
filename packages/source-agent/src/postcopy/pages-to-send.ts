/**
 * What has still to be sent over one pair of lanes: what the dest lacks, as it has said itself.
 *
 *   listed ─▶ open ─▶ at work ─▶ sent             a page is at work from the moment that somebody
 *               ▲        │                        takes it until its frame is on the link
 *               └────────┴─▶ unreadable
 */
import { limits, violation } from "@vmferry/protocol";
import { PageSet, type PageRun } from "@vmferry/agent";

const { PAGE_BYTES } = limits;

export class PagesToSend {
  readonly #stored: PageSet;
  readonly #open: PageSet;
  readonly #atWork: PageSet;
  readonly #unreadable: PageSet;

  /** Empty. @param stored all that may be listed */
  constructor(stored: PageSet) {
    this.#stored = stored;
    this.#open = emptyLike(stored);
    this.#atWork = emptyLike(stored);
    this.#unreadable = emptyLike(stored);
  }

  /** Pages that are not sent. */
  get count(): number {
    return this.#open.count + this.#atWork.count + this.#unreadable.count;
  }

  blockPages(block: number): number {
    return this.#stored.blockPages[block]!;
  }

  /** The dest lacks these pages. Throws when it lacks what is not stored, or says so twice. */
  list(run: PageRun): void {
    this.checkStored(run);
    for (let page = run.first; page < run.first + run.count; page++) {
      if (!this.#open.add(run.block, page)) throw violation("a page is missing twice");
    }
  }

  /** The dest lacks all that is stored. Throws where it has listed some of it before. */
  listAll(): void {
    if (this.count > 0) throw violation("a page is missing twice");
    this.#open.addAll(this.#stored);
  }

  /** Throws unless all of these pages are stored. */
  checkStored(run: PageRun): void {
    if (!this.#stored.covers(run)) throw violation("pages outside of memory");
    for (let page = run.first; page < run.first + run.count; page++) {
      if (!this.#stored.has(run.block, page)) throw violation("a page that is not stored");
    }
  }

  /** To be sent, and nobody is at it. */
  isOpen(block: number, page: number): boolean {
    return this.#open.has(block, page);
  }

  isSent(block: number, page: number): boolean {
    const has = (set: PageSet): boolean => set.has(block, page);
    return !has(this.#open) && !has(this.#atWork) && !has(this.#unreadable);
  }

  /** The first open page at or behind a place; the search begins anew at the end of memory. */
  next(block: number, page: number): { readonly block: number; readonly page: number } | null {
    if (this.#open.count === 0) return null;
    const run = this.#open.next(block, page, 1) ?? this.#open.next(0, 0, 1);
    return run === null ? null : { block: run.block, page: run.first };
  }

  /** Somebody is at this page, which is not sent. */
  take(block: number, page: number): void {
    this.#open.remove(block, page);
    this.#unreadable.remove(block, page);
    this.#atWork.add(block, page);
  }

  /** Nobody is at it any more; a page that was sent meanwhile stays sent. */
  putBack(block: number, page: number): void {
    if (this.#atWork.remove(block, page)) this.#open.add(block, page);
  }

  sent(block: number, page: number): void {
    this.#open.remove(block, page);
    this.#unreadable.remove(block, page);
    this.#atWork.remove(block, page);
  }

  failed(block: number, page: number): void {
    if (this.#atWork.remove(block, page)) this.#unreadable.add(block, page);
  }

  /** What could not be read is open again. Tells whether there was any. */
  retryUnreadable(): boolean {
    if (this.#unreadable.count === 0) return false;
    for (const { block, first, count } of this.#unreadable.runs(1024)) {
      for (let page = first; page < first + count; page++) this.#open.add(block, page);
    }
    this.#unreadable.clear();
    return true;
  }
}

export function emptyLike(set: PageSet): PageSet {
  return new PageSet(set.blockPages.map((pages) => ({ lengthBytes: pages * PAGE_BYTES })));
}

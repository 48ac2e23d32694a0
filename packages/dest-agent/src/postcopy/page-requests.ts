/**
 * Pages that QEMU waits for. Each is told once, while it is missing, until it is placed; what was
 * asked before anybody listened is told to the first who does.
 */
import type { PageSet } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import {
  pageRequestOf,
  type PageRequest,
  type RamBlock,
  type ReturnPathMessage,
} from "@vmferry/qemu";

export type ReqPages = Extract<ReturnPathMessage, { readonly type: "req-pages" }>;

export interface RequestListener {
  readonly onRequest: (request: PageRequest) => void;
  /** A page that was asked for is on its way into QEMU, so long after it asked. */
  readonly onPlaced?: (latencyMs: number) => void;
}

export interface PageRequestsOptions {
  readonly blocks: readonly RamBlock[];
  readonly missing: PageSet;
  readonly nowMs: () => number;
}

export class PageRequests {
  readonly #options: PageRequestsOptions;
  /** When each page was asked for, by its place among all pages. */
  readonly #askedMs = new Map<number, number>();
  readonly #firstOfBlock: readonly number[];
  #listener: RequestListener | null = null;

  constructor(options: PageRequestsOptions) {
    this.#options = options;
    let pages = 0;
    this.#firstOfBlock = options.missing.blockPages.map((count) => (pages += count) - count);
  }

  /** What is asked for and not placed, oldest first. */
  outstanding(): PageRequest[] {
    return [...this.#askedMs.keys()].map((index) => {
      const block = this.#firstOfBlock.findLastIndex((first) => first <= index);
      return { block, firstPage: index - this.#firstOfBlock[block]!, pageCount: 1 };
    });
  }

  /** Takes the place of the listener before, and is told what is outstanding. */
  listen(listener: RequestListener): void {
    this.#listener = listener;
    for (const request of this.outstanding()) listener.onRequest(request);
  }

  /**
   * QEMU asks. What it has is passed over, for its answer was under way; so is what goes beyond the
   * limit, which comes with all the other pages. Throws for what is no host page of a block.
   */
  asked(message: ReqPages): void {
    const { blocks, missing, nowMs } = this.#options;
    const { block, firstPage, pageCount } = pageRequestOf(message, blocks);
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      const index = this.#firstOfBlock[block]! + page;
      if (!missing.has(block, page) || this.#askedMs.has(index)) continue;
      if (this.#askedMs.size >= limits.REQUESTS_MAX) return;
      this.#askedMs.set(index, nowMs());
      this.#listener?.onRequest({ block, firstPage: page, pageCount: 1 });
    }
  }

  /** QEMU itself has asked for the page, and waits for it. */
  isAsked(block: number, page: number): boolean {
    return this.#askedMs.size > 0 && this.#askedMs.has(this.#firstOfBlock[block]! + page);
  }

  placed(block: number, page: number): void {
    if (this.#askedMs.size === 0) return;
    const index = this.#firstOfBlock[block]! + page;
    const askedMs = this.#askedMs.get(index);
    if (askedMs === undefined) return;
    this.#askedMs.delete(index);
    this.#listener?.onPlaced?.(this.#options.nowMs() - askedMs);
  }
}

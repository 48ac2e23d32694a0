/** What was sent after the hand-over, over all pairs of lanes. */
import type { PageSet } from "@vmferry/agent";
import { emptyLike } from "./pages-to-send.ts";

export interface PageCounters {
  sentPages: number;
  /** Of their frames, as they went over the wire. */
  sentBytes: number;
  /** Pages that a vCPU was waiting for. */
  requestedPages: number;
  /** Pages that were sent along with those. */
  prefetchedPages: number;
  /** Of the sent ones, those that went out once more: lost with a lane, or asked for on their way. */
  resentPages: number;
  /** Pairs of lanes behind the first. */
  reconnects: number;
}

export class PageTally {
  readonly counters: PageCounters = {
    sentPages: 0,
    sentBytes: 0,
    requestedPages: 0,
    prefetchedPages: 0,
    resentPages: 0,
    reconnects: 0,
  };
  readonly #sentBefore: PageSet;

  constructor(stored: PageSet) {
    this.#sentBefore = emptyLike(stored);
  }

  sent(block: number, pages: readonly number[], bytes: number): void {
    const { counters } = this;
    counters.sentPages += pages.length;
    counters.sentBytes += bytes;
    for (const page of pages) if (!this.#sentBefore.add(block, page)) counters.resentPages++;
  }
}

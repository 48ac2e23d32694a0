/**
 * What vCPUs wait for, at once and raw, and after each of them some of its neighbours. Whatever is
 * asked for goes before every neighbour that is not on the link yet.
 */
import { assert } from "@vmferry/core";
import {
  FrameEncoding,
  FrameKind,
  limits,
  sealFrame,
  violation,
  type PageMessageOf,
} from "@vmferry/protocol";
import type { OpenPageLane } from "../adapters/page-socket.ts";
import { planPrefetch, prefetchBudgetPages, type PrefetchStream } from "../policy/prefetch.ts";
import type { PageCounters } from "./page-tally.ts";
import type { PagesToSend } from "./pages-to-send.ts";
import type { FramePool, StoredFrame } from "./stored-frame.ts";

const { CREDIT_BYTES_MAX, FRAME_BYTES_MAX, FRAME_PAGES_MAX, PAGE_BYTES, REQUESTS_MAX } = limits;
/** Frames for which the store is read at the same time. */
const READS_MAX = 8;

export interface UrgentPagesOptions {
  readonly lane: OpenPageLane;
  readonly toSend: PagesToSend;
  readonly pool: FramePool;
  readonly isZero: (block: number, page: number) => boolean;
  /** Resolves with whether the frame is complete; what could not be read is taken care of. */
  readonly read: (frame: StoredFrame) => Promise<boolean>;
  /** What the link carries; null before it was measured. */
  readonly linkRate: () => number | null;
  readonly counters: Pick<PageCounters, "requestedPages" | "prefetchedPages">;
  readonly onSent: (block: number, pages: readonly number[], bytes: number) => void;
  readonly onFailed: (error: unknown) => void;
}

interface Job {
  readonly block: number;
  readonly pages: readonly number[];
  readonly isFault: boolean;
}

interface UnderWay {
  readonly bytes: number;
  readonly prefetchedPages: number;
}

export class UrgentPages {
  readonly #options: UrgentPagesOptions;
  readonly #faults: Job[] = [];
  readonly #neighbours: Job[] = [];
  /** Frames that the dest has not placed, in order. */
  readonly #underWay: UnderWay[] = [];
  #underWayBytes = 0;
  /** Of the first of them, what the dest has told of. */
  #toldBytes = 0;
  /** Planned, and not told of yet. */
  #prefetchedPages = 0;
  #streams: readonly PrefetchStream[] = [];
  #sequence = 0;
  #reading = 0;
  #stopped = false;

  constructor(options: UrgentPagesOptions) {
    this.#options = options;
  }

  /** A vCPU waits for what is not on the link yet. */
  get isAsked(): boolean {
    return this.#faults.length + this.#reading > 0;
  }

  /** A vCPU waits for what the dest has not placed. */
  get isWaitedFor(): boolean {
    return this.isAsked || this.#underWay.some(({ prefetchedPages }) => prefetchedPages === 0);
  }

  /** Nothing is under way, not even to the dest. */
  get idle(): boolean {
    const waiting = this.#faults.length + this.#neighbours.length;
    return waiting + this.#reading + this.#underWay.length === 0;
  }

  stop(): void {
    this.#stopped = true;
  }

  /**
   * Pages of it that were sent already are left out; tells whether any are not. Throws where it asks
   * for too much.
   */
  request({ block, firstPage, pages }: PageMessageOf<"request">): boolean {
    const { toSend, counters } = this.#options;
    toSend.checkStored({ block, first: firstPage, count: pages });
    const wanted = Array.from({ length: pages }, (_, index) => firstPage + index).filter(
      (page) => !toSend.isSent(block, page),
    );
    if (wanted.length === 0) return false;
    if (this.#faults.length >= REQUESTS_MAX) throw violation("more requests than may be open");
    for (const page of wanted) toSend.take(block, page);
    counters.requestedPages += wanted.length;
    this.#faults.push({ block, pages: wanted, isFault: true });
    this.#pump();
    return true;
  }

  /** The dest has placed so many bytes. Throws when it claims more than it was sent. */
  placed(bytes: number): void {
    if (bytes > this.#underWayBytes) throw violation("more was placed than was sent");
    this.#underWayBytes -= bytes;
    this.#toldBytes += bytes;
    let first = this.#underWay[0];
    while (first !== undefined && first.bytes <= this.#toldBytes) {
      this.#underWay.shift();
      this.#toldBytes -= first.bytes;
      this.#prefetchedPages -= first.prefetchedPages;
      first = this.#underWay[0];
    }
    this.#pump();
  }

  #pump(): void {
    while (!this.#stopped && this.#reading < READS_MAX && this.#hasCredit()) {
      const job = this.#faults.shift() ?? this.#neighbours.shift();
      if (job === undefined) return;
      this.#reading++;
      this.#serve(job).catch(this.#options.onFailed);
    }
  }

  #hasCredit(): boolean {
    const bytes = this.#underWayBytes + (this.#reading + 1) * FRAME_BYTES_MAX;
    return bytes <= CREDIT_BYTES_MAX;
  }

  async #serve(job: Job): Promise<void> {
    const { pool, isZero, read } = this.#options;
    const { block, pages, isFault } = job;
    const frame = pool.take(block);
    for (const page of pages) frame.add(page, isZero(block, page));
    const isComplete = await read(frame);
    this.#reading--;
    if (this.#stopped || !isComplete) {
      pool.release(frame);
      if (!this.#stopped) this.#again(job);
      return;
    }
    this.#send(frame, isFault ? 0 : pages.length);
    if (isFault) this.#plan(block, pages.at(-1)!);
    this.#pump();
  }

  /** Something of it could not be read: what could is asked for still, and open again. */
  #again({ block, pages, isFault }: Job): void {
    const { toSend } = this.#options;
    if (!isFault) this.#prefetchedPages -= pages.length;
    const readable = isFault ? pages.filter((page) => toSend.isOpen(block, page)) : [];
    for (const page of readable) {
      toSend.take(block, page);
      this.#faults.unshift({ block, pages: [page], isFault });
    }
    this.#pump();
  }

  #send(frame: StoredFrame, prefetchedPages: number): void {
    const { lane, pool, counters, onSent } = this.#options;
    const { block, runs } = frame;
    const view = frame.finish();
    const sequence = this.#sequence++;
    const kind = FrameKind.PAGES;
    sealFrame(view, { kind, encoding: FrameEncoding.RAW, pass: 0, sequence, block, runs });
    this.#underWay.push({ bytes: view.length, prefetchedPages });
    this.#underWayBytes += view.length;
    counters.prefetchedPages += prefetchedPages;
    onSent(block, frame.pages, view.length);
    // Last: the buffer may be used again at once.
    lane.send(view, () => {
      pool.release(frame);
    });
  }

  #plan(block: number, page: number): void {
    const { lane, toSend, linkRate } = this.#options;
    const budgetPages = prefetchBudgetPages({
      linkBytesPerSecond: linkRate(),
      roundTripMs: lane.roundTripMs,
      pageBytes: PAGE_BYTES,
      outstandingPages: this.#prefetchedPages,
    });
    const plan = planPrefetch({
      block,
      page,
      blockPages: toSend.blockPages(block),
      streams: this.#streams,
      budgetPages,
      isMissing: (each) => toSend.isOpen(block, each),
    });
    this.#streams = plan.streams;
    for (const each of plan.pages) toSend.take(block, each);
    this.#prefetchedPages += plan.pages.length;
    for (let at = 0; at < plan.pages.length; at += FRAME_PAGES_MAX) {
      const pages = plan.pages.slice(at, at + FRAME_PAGES_MAX);
      this.#neighbours.push({ block, pages, isFault: false });
    }
    assert(this.#prefetchedPages >= 0, "what is told of was planned");
  }
}

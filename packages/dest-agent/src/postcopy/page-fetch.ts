/**
 * Fetches what the dest's QEMU lacks after the hand-over, over one pair of page lanes after another,
 * and has each page placed once.
 *
 *   QEMU asks ─▶ OpenRequests ─REQUEST─▶ ═══ source ═══ ─▶ LanePair ─▶ RunTable, zstd ─▶ PagePlacer ─▶ QEMU
 *                                                            ◀─PLACED─────────────────────────┘
 *
 *   page file ─▶ PagesFromFile ─▶ PagePlacer: the same pages by way of a share, where there is one
 *
 * On a new pair the source is told what is missing, so nothing has to be kept of an earlier one. What
 * is wrong with what comes ends the pair, and the source dials anew; only QEMU ends the fetching.
 */
import {
  assert,
  type Clock,
  Deferred,
  type LatencyHistogram,
  messageOf,
  sleep,
} from "@vmferry/core";
import type { Logger } from "@vmferry/agent";
import {
  CloseCode,
  closeCodeOf,
  FrameEncoding,
  limits,
  ProtocolError,
  RunTable,
  violation,
  type PageLaneName,
  type PageMessageOf,
} from "@vmferry/protocol";
import { Inflater } from "../bulk/inflate-data.ts";
import type { PageLink } from "../session/page-link.ts";
import { FetchTally, type FetchCounters } from "./fetch-tally.ts";
import { LanePair, type ArrivedPages } from "./lane-pair.ts";
import { missingMessages } from "./missing-messages.ts";
import { OpenRequests, requestsOf, type PageRequest } from "./open-requests.ts";
import type { PagePlacer } from "./page-placer.ts";
import type { FoundPages, PagesFromFile } from "./pages-from-file.ts";

const { FRAME_PAGES_MAX, PAGE_BYTES } = limits;
/**
 * So many pages are collected before QEMU has to take them. More than an urgent frame has: those are
 * under way together, share a run table, and must not wait in the middle of it.
 */
const FLUSH_PAGES = 4 * FRAME_PAGES_MAX;
/** Between the last page and the source's word about all of them lies a round trip. */
const SERVED_MS_MAX = 5000;
/** QEMU places the last pages within a second. One that could not place a page may say nothing at all. */
const END_MS_MAX = 30_000;

export interface PageFetchOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  /** Feature `lacks-all` was agreed with the source, which has told what QEMU lacks. */
  readonly maySayAll: boolean;
  readonly onProgress: () => void;
  /** A page has come that vCPUs waited for, for so long. */
  readonly onPageFault: (seconds: number) => void;
  /** QEMU was given everything, and has not said for long that it has it. It may still. */
  readonly onEndOverdue: () => void;
  /** Of all that has fetched for this guest so far; a new one where nothing has. */
  readonly tally?: FetchTally;
}

export interface WholeMemory {
  /** Digest over what QEMU was given; null where an earlier life of the agent gave it a part. */
  readonly ramDigest: string | null;
  /** Whether the source's digest is the same; null where either side does not know. */
  readonly equal: boolean | null;
}

export class PageFetch {
  readonly counters: FetchCounters;
  /** Resolves when QEMU has everything; rejects when it does not take it. */
  readonly whole: Promise<WholeMemory>;
  readonly #whole = new Deferred<WholeMemory>();
  readonly #options: PageFetchOptions;
  /** Of the background lane alone, whose frames are placed one after the other. */
  readonly #inflater = new Inflater();
  readonly #requests: OpenRequests;
  readonly #runs: Readonly<Record<PageLaneName, RunTable>> = {
    urgent: new RunTable(),
    background: new RunTable(),
  };
  #placer: PagePlacer | null = null;
  /** Pages, when QEMU was loaded. */
  #lacked = 0;
  #pair: LanePair | null = null;
  #pairs = 0;
  #file: PagesFromFile | null = null;
  /** Frames of the background are being taken. */
  #isPlacing = false;
  /** Frames, and pages from the file, that are on their way to QEMU. */
  #placing = 0;
  readonly #served = new Deferred<string | null>();
  #isEnding = false;
  /** What lanes are told that come too late; null before that. */
  #over: CloseCode | null = null;

  constructor(options: PageFetchOptions) {
    const { clock, onPageFault, tally = new FetchTally() } = options;
    this.#options = options;
    this.counters = tally.counters;
    this.#requests = new OpenRequests(clock, onPageFault, tally.waits);
    this.whole = this.#whole.promise;
  }

  /** How long vCPUs waited for pages. */
  get waits(): LatencyHistogram {
    return this.#requests.waits;
  }

  /** Null before QEMU is loaded. */
  get missingPages(): number | null {
    return this.#placer?.missing.count ?? null;
  }

  /** There is a pair of lanes at present. */
  get isConnected(): boolean {
    return this.#pair?.isWhole === true;
  }

  /** A lane takes the place of both lanes of an earlier attempt. */
  attach(lane: PageLaneName, attempt: number, link: PageLink): void {
    if (this.#over !== null) {
      link.close(this.#over);
      return;
    }
    const current = this.#pair;
    const isLate =
      current !== null &&
      (attempt < current.attempt || (attempt === current.attempt && current.has(lane)));
    if (isLate) {
      link.close(CloseCode.SESSION_ENDED);
      return;
    }
    if (current !== null && attempt > current.attempt) this.#drop(CloseCode.SESSION_ENDED);
    const pair = this.#pair ?? this.#newPair(attempt);
    this.#pair = pair;
    pair.add(lane, link);
    if (pair.isWhole) this.#greet(pair);
  }

  /** QEMU is loaded, and takes pages. Called once. `file` is null where nothing goes by a share. */
  begin(placer: PagePlacer, file: PagesFromFile | null = null): void {
    assert(this.#placer === null, "QEMU is loaded once");
    this.#placer = placer;
    this.#lacked = placer.missing.count;
    this.#file = file;
    if (file !== null) {
      this.#takeFrom(file, placer).catch((error: unknown) => {
        this.#fail(error);
      });
    }
    if (this.#pair?.isWhole === true) this.#greet(this.#pair);
    this.#endIfWhole();
  }

  /** QEMU's vCPUs wait for these pages. Called after `begin`. */
  requested(request: {
    readonly block: number;
    readonly firstPage: number;
    readonly pageCount: number;
  }): void {
    const { block, firstPage, pageCount } = request;
    const missing = this.#placer?.missing;
    assert(missing?.covers({ block, first: firstPage, count: pageCount }) === true, "QEMU's own");
    const pages = Array.from({ length: pageCount }, (_, index) => firstPage + index);
    const fresh = pages.filter(
      (page) => missing.has(block, page) && this.#requests.add(block, page),
    );
    this.counters.requestedPages += fresh.length;
    if (fresh.length > 0) this.#file?.asked();
    if (this.#pair?.isGreeted === true) {
      this.#ask(this.#pair, requestsOf(fresh.map((page) => ({ block, page }))));
    }
  }

  /** Everything is there, or QEMU is gone; another code where pages are wanted again later. */
  close(code: CloseCode = CloseCode.DONE): void {
    this.#over ??= code;
    this.#file?.close();
    this.#drop(code);
  }

  #newPair(attempt: number): LanePair {
    const pair: LanePair = new LanePair(attempt, {
      onArrived: (lane) => {
        if (lane === "urgent") this.#placeUrgent(pair);
        else this.#place();
      },
      onServed: (ramDigest) => {
        if (this.#placer!.missing.count > 0) throw violation("SERVED while pages are missing");
        this.#served.resolve(ramDigest);
      },
      onEnd: (reason) => {
        this.#lost(pair, reason);
      },
    });
    return pair;
  }

  #lost(pair: LanePair, reason: unknown): void {
    if (pair !== this.#pair) return;
    this.#options.logger.warn({ reason: messageOf(reason) }, "page lanes lost");
    this.#drop(closeCodeOf(reason));
  }

  /** What has come over the pair and was not placed is missing still. */
  #drop(code: CloseCode): void {
    const pair = this.#pair;
    this.#pair = null;
    pair?.close(code);
  }

  #greet(pair: LanePair): void {
    if (this.#placer === null) return;
    this.#tellMissing(pair, this.#placer).catch((error: unknown) => {
      this.#fail(error);
    });
  }

  async #tellMissing(pair: LanePair, placer: PagePlacer): Promise<void> {
    for (const message of this.#lackingMessages(placer)) {
      // The source may answer the last one before we hear that it has left.
      const isLast = message.kind === "all" || message.last;
      if (isLast) pair.isGreeted = true;
      const left = pair.say(message);
      if (isLast) this.#ask(pair, this.#requests.all());
      await left;
      if (pair.isOver) return;
    }
    if (this.#pairs++ > 0) this.counters.reconnects++;
    const { attempt } = pair;
    this.#options.logger.info({ attempt, missingPages: placer.missing.count }, "fetching pages");
  }

  /** A list is long, and the guest stands still meanwhile: where nothing has come the source has it. */
  #lackingMessages({ missing }: PagePlacer): Iterable<PageMessageOf<"missing" | "all">> {
    const isAll = this.#options.maySayAll && this.#pairs === 0 && missing.count === this.#lacked;
    return isAll ? [{ kind: "all" }] : missingMessages(missing);
  }

  #ask(pair: LanePair, requests: readonly PageRequest[]): void {
    for (const request of requests) void pair.say({ kind: "request", ...request });
  }

  /**
   * At once, whatever QEMU has not taken of the background yet. What is under way is bounded by the
   * lane's credit.
   */
  #placeUrgent(pair: LanePair): void {
    for (let arrived = pair.next("urgent"); arrived !== undefined; arrived = pair.next("urgent")) {
      if (this.#over !== null) return;
      void this.#placeOne(pair, arrived);
    }
  }

  /** Takes one frame of the background after another, until none waits. */
  #place(): void {
    if (this.#isPlacing) return;
    this.#isPlacing = true;
    void this.#placeAll();
  }

  async #placeAll(): Promise<void> {
    for (;;) {
      const pair = this.#pair;
      const arrived = pair?.next("background");
      if (pair === null || arrived === undefined || this.#over !== null) {
        // At once: what arrives from now on has to find nobody at it.
        this.#isPlacing = false;
        return;
      }
      await this.#placeOne(pair, arrived);
    }
  }

  /** Never rejects. */
  async #placeOne(pair: LanePair, arrived: ArrivedPages): Promise<void> {
    this.#placing++;
    try {
      await this.#placeFrame(arrived);
      pair.placed(arrived);
      this.#options.onProgress();
    } catch (error) {
      if (error instanceof ProtocolError) this.#lost(pair, error);
      else this.#fail(error);
    }
    this.#placing--;
    this.#endIfWhole();
  }

  /** Rejects with a violation only before anything of the frame is placed. */
  async #placeFrame({ lane, header, frame }: ArrivedPages): Promise<void> {
    const placer = this.#placer!;
    const { block } = header;
    const blockPages = placer.missing.blockPages[block];
    if (blockPages === undefined) throw violation("frame of a block that is not there");
    const runs = this.#runs[lane];
    runs.open(frame, header, blockPages);
    if (lane === "urgent" && runs.allPages > FRAME_PAGES_MAX) {
      throw violation("more pages in an urgent frame than anybody waits for");
    }
    const { data, start } = this.#pageData(runs, header.encoding, frame);
    // Nothing of the frame can be wrong from here on.
    let offset = start;
    const collected: number[] = [];
    for (let run = 0; run < runs.count; run++) {
      const first = runs.first(run);
      const end = first + runs.pages(run);
      const isZero = runs.zero(run);
      for (let page = first; page < end; page++) {
        if (!placer.missing.has(block, page)) this.counters.twicePages++;
        else {
          if (isZero) placer.zeroPage(block, page);
          else placer.page(block, page, data, offset);
          if (isZero) this.counters.zeroPages++;
          collected.push(page);
        }
        if (!isZero) offset += PAGE_BYTES;
        if (collected.length >= FLUSH_PAGES) await this.#flush(placer, block, collected);
      }
    }
    if (collected.length > 0) await this.#flush(placer, block, collected);
  }

  /** What the file has, until it has no more or everything is there. */
  async #takeFrom(file: PagesFromFile, placer: PagePlacer): Promise<void> {
    const wanted = {
      asked: () => this.#requests.all(),
      isMissing: (block: number, page: number) => placer.missing.has(block, page),
    };
    while (placer.missing.count > 0) {
      const found = await file.next(wanted);
      if (found === null || this.#over !== null) return;
      this.#placing++;
      await this.#placeFound(placer, found);
      this.#placing--;
      this.#endIfWhole();
    }
  }

  async #placeFound(placer: PagePlacer, found: readonly FoundPages[]): Promise<void> {
    const collected: number[] = [];
    let last = 0;
    for (const { block, first, count, content } of found) {
      if (block !== last && collected.length > 0) await this.#flush(placer, last, collected);
      last = block;
      for (let page = first; page < first + count; page++) {
        if (!placer.missing.has(block, page)) continue;
        if (content === "zero") placer.zeroPage(block, page);
        else placer.page(block, page, content, 0);
        if (content === "zero") this.counters.zeroPages++;
        this.counters.filePages++;
        collected.push(page);
        if (collected.length >= FLUSH_PAGES) await this.#flush(placer, block, collected);
      }
    }
    if (collected.length > 0) await this.#flush(placer, last, collected);
  }

  async #flush(placer: PagePlacer, block: number, collected: number[]): Promise<void> {
    await placer.flush();
    this.counters.placedPages += collected.length;
    for (const page of collected.splice(0)) this.#requests.placed(block, page);
  }

  #pageData(
    runs: RunTable,
    encoding: FrameEncoding,
    frame: Buffer,
  ): { data: Buffer; start: number } {
    const start = runs.dataOffset;
    if (encoding === FrameEncoding.RAW) return { data: frame, start };
    if (!this.#options.compression) throw violation("zstd without its feature");
    const data = this.#inflater.inflate(frame.subarray(start), runs.dataPages * PAGE_BYTES);
    return { data, start: 0 };
  }

  /** A source that dies now takes nothing of the guest with it. */
  #endIfWhole(): void {
    const placer = this.#placer;
    if (placer === null || placer.missing.count > 0) return;
    if (this.#placing > 0 || this.#isEnding || this.#over !== null) return;
    this.#isEnding = true;
    this.#end(placer).catch((error: unknown) => {
      this.#fail(error);
    });
  }

  async #end(placer: PagePlacer): Promise<void> {
    this.#file?.close();
    const { clock, onEndOverdue } = this.#options;
    const cancelTimer = clock.after(END_MS_MAX, onEndOverdue);
    await placer.end().finally(cancelTimer);
    const theirs = await Promise.race([this.#served.promise, this.#unserved()]);
    const ramDigest = placer.digest();
    const isKnown = ramDigest !== null && theirs !== null;
    this.#whole.resolve({ ramDigest, equal: isKnown ? ramDigest === theirs : null });
  }

  /** The digest of a source that cannot be heard any more is not waited for. */
  async #unserved(): Promise<null> {
    await sleep(this.#options.clock, SERVED_MS_MAX);
    return null;
  }

  /** The source has what is missing still, and is wanted again: it is not told that all is done. */
  #fail(error: unknown): void {
    this.#whole.reject(error);
    this.close(CloseCode.SESSION_ENDED);
  }
}

/**
 * One pair of page lanes, from what the dest lacks to the last page. It ends with either lane, and
 * when the dest breaks the protocol; what was under way is for the next attempt to send.
 */
import { Deferred, messageOf, type Clock } from "@vmferry/core";
import {
  decodePageMessage,
  encodePageMessage,
  limits,
  violation,
  type PageLaneName,
  type PageMessageOf,
} from "@vmferry/protocol";
import type { OpenPageLane } from "../adapters/page-socket.ts";
import type { BulkConnection, SendWindow } from "../transport/bulk-sender.ts";
import { Transport } from "../transport/transport.ts";
import { BackgroundPages } from "./background-pages.ts";
import type { PageTally } from "./page-tally.ts";
import { PagesToSend } from "./pages-to-send.ts";
import type { Push } from "./push.ts";
import type { FramePool, SentPageHashes, StoredFrame } from "./stored-frame.ts";
import type { StoredPages } from "./stored-pages.ts";
import { UnplacedPages } from "./unplaced-pages.ts";
import { UrgentPages } from "./urgent-pages.ts";

/** A page that is asked for shares the link with what is under way in the background. */
const WINDOW: SendWindow = {
  ms: 5,
  roundTrips: 1.25,
  bytesMin: 64 * 1024,
  bytesFirst: 128 * 1024,
};
/** A store that could not be read may have been away for a moment. */
const READ_AGAIN_MS = 5000;

export interface PageLanes {
  readonly urgent: OpenPageLane;
  readonly background: OpenPageLane;
}

export interface UnreadablePage {
  readonly block: number;
  readonly page: number;
  readonly error: unknown;
}

export interface PageAttemptOptions {
  readonly store: StoredPages;
  readonly pool: FramePool;
  readonly tally: PageTally;
  readonly hashes: SentPageHashes | null;
  /** Digest over all of memory once everything was sent; null where it is not known. */
  readonly ramDigest: () => string | null;
  /** Both agents have zstd. */
  readonly compression: boolean;
  readonly bandwidthBytesPerSecond: number | null;
  /** What the link was seen to carry before; null where nobody knows. */
  readonly linkBytesPerSecond: number | null;
  readonly push: Push;
  readonly clock: Clock;
  readonly onProgress: () => void;
  /** A page that the store does not give; it is tried again, and all others are served. */
  readonly onFailed: (page: UnreadablePage) => void;
}

export class PageAttempt {
  /** Why it ended; never rejects. */
  readonly ended: Promise<Error>;
  readonly #ended = new Deferred<Error>();
  readonly #options: PageAttemptOptions;
  readonly #lanes: PageLanes;
  readonly #toSend: PagesToSend;
  readonly #transport: Transport;
  readonly #urgent: UrgentPages;
  readonly #background: BackgroundPages;
  readonly #unplaced = { urgent: new UnplacedPages(), background: new UnplacedPages() };
  #isListed = false;
  #isServed = false;
  #isUseful = false;
  #cancelTimer: (() => void) | null = null;

  constructor(lanes: PageLanes, options: PageAttemptOptions) {
    this.#lanes = lanes;
    this.#options = options;
    this.ended = this.#ended.promise;
    this.#toSend = new PagesToSend(options.store.pages);
    const onFailed = (error: unknown): void => {
      this.#end(error);
    };
    this.#transport = new Transport({
      connections: [this.#connection()],
      creditBytes: limits.CREDIT_BYTES_MAX,
      bandwidthBytesPerSecond: options.bandwidthBytesPerSecond,
      compression: options.compression,
      clock: options.clock,
      window: WINDOW,
      onFailed,
    });
    const shared = {
      toSend: this.#toSend,
      pool: options.pool,
      isZero: (block: number, page: number) => options.store.isZero(block, page),
      read: (frame: StoredFrame) => this.#read(frame),
      onFailed,
    };
    this.#background = new BackgroundPages({
      ...shared,
      push: options.push,
      transport: this.#transport,
      clock: options.clock,
    });
    this.#urgent = new UrgentPages({
      ...shared,
      lane: lanes.urgent,
      linkRate: () => this.#transport.out.rate.bytesPerSecond ?? options.linkBytesPerSecond,
      onSent: (block, pages, bytes) => {
        this.#transport.out.spentElsewhere(bytes);
        this.#sent("urgent", { block, pages, bytes });
      },
      counters: options.tally.counters,
    });
    this.#transport.yieldTo(() => this.#urgent.isAsked);
    this.#listen();
  }

  /** The dest has placed something, or has everything. */
  get isUseful(): boolean {
    return this.#isUseful;
  }

  /** Sent over these lanes, and not placed as far as the dest has told. */
  get unplacedPages(): number {
    return this.#unplaced.urgent.count + this.#unplaced.background.count;
  }

  /** Null before the dest has said what it lacks. */
  get remainingPages(): number | null {
    return this.#isListed ? this.#toSend.count : null;
  }

  setBandwidthLimit(bytesPerSecond: number | null): void {
    this.#transport.out.setBandwidthLimit(bytesPerSecond);
  }

  setPush(push: Push): void {
    this.#background.setPush(push);
  }

  close(): void {
    this.#end(new Error("pages are not served any more"));
  }

  #listen(): void {
    const { urgent, background } = this.#lanes;
    for (const lane of [urgent, background]) {
      void lane.closed.then((reason) => {
        this.#end(reason);
      });
    }
    background.listen(() => {
      this.#end(violation("a message on the background lane"));
    });
    urgent.listen((bytes) => {
      if (this.#ended.settled) return;
      try {
        this.#take(bytes);
      } catch (error) {
        this.#end(error);
      }
    });
  }

  #take(bytes: Buffer): void {
    const message = decodePageMessage(bytes);
    if (message.kind === "missing" || message.kind === "all") {
      if (this.#isListed) throw violation("MISSING behind its last");
      this.#list(message);
      return;
    }
    if (!this.#isListed) throw violation("a page message before all of MISSING");
    switch (message.kind) {
      case "request": {
        if (this.#urgent.request(message)) this.#background.asked();
        this.#background.jump(message.block, message.firstPage + message.pages);
        return;
      }
      case "placed":
        this.#placed(message);
        return;
      case "served":
        throw violation("SERVED from the dest");
    }
  }

  #list(message: PageMessageOf<"missing" | "all">): void {
    if (message.kind === "all") this.#toSend.listAll();
    else {
      const { block, runs, last } = message;
      for (const run of runs) this.#toSend.list({ block, ...run });
      if (!last) return;
    }
    this.#isListed = true;
    this.#options.onProgress();
    this.#background.start();
    this.#finish();
  }

  #placed({ lane, bytes }: PageMessageOf<"placed">): void {
    this.#isUseful = true;
    this.#unplaced[lane].placed(bytes);
    if (lane === "urgent") {
      this.#urgent.placed(bytes);
      if (!this.#urgent.isWaitedFor) this.#background.answered();
    } else {
      this.#transport.out.setRoundTrip(this.#lanes.background.roundTripMs);
      this.#transport.out.acknowledged(bytes);
    }
    this.#finish();
  }

  /** The background lane as the sender of frames sees it. */
  #connection(): BulkConnection {
    const { background } = this.#lanes;
    return {
      get bufferedBytes() {
        return background.bufferedBytes;
      },
      send: (frame, flushed) => {
        const { block, pages } = this.#background.frameSent();
        this.#sent("background", { block, pages, bytes: frame.length });
        background.send(frame, flushed);
      },
    };
  }

  #sent(
    lane: PageLaneName,
    { block, pages, bytes }: { block: number; pages: readonly number[]; bytes: number },
  ): void {
    this.#unplaced[lane].sent(pages.length, bytes);
    for (const page of pages) this.#toSend.sent(block, page);
    this.#options.tally.sent(block, pages, bytes);
    this.#options.onProgress();
  }

  /** Whether the frame is complete. If not, what can be read is open again, the rest in a while. */
  async #read(frame: StoredFrame): Promise<boolean> {
    const { store, hashes, onFailed } = this.#options;
    const unreadable = await frame.read(store, hashes);
    if (unreadable.length === 0 || this.#ended.settled) return unreadable.length === 0;
    const { block, readError: error } = frame;
    for (const page of unreadable) {
      this.#toSend.failed(block, page);
      onFailed({ block, page, error });
    }
    for (const page of frame.pages) this.#toSend.putBack(block, page);
    this.#cancelTimer ??= this.#options.clock.after(READ_AGAIN_MS, () => {
      this.#cancelTimer = null;
      if (this.#toSend.retryUnreadable()) this.#background.fill();
    });
    return false;
  }

  #finish(): void {
    if (this.#isServed || !this.#isListed || this.#toSend.count > 0) return;
    if (!this.#urgent.idle || !this.#background.idle) return;
    this.#isServed = true;
    this.#isUseful = true;
    const ramDigest = this.#options.ramDigest();
    this.#lanes.urgent.send(encodePageMessage({ kind: "served", ramDigest }), () => undefined);
  }

  #end(reason: unknown): void {
    if (this.#ended.settled) return;
    this.#ended.resolve(reason instanceof Error ? reason : new Error(messageOf(reason)));
    this.#cancelTimer?.();
    this.#urgent.stop();
    this.#background.stop();
    this.#transport.stop();
    this.#lanes.urgent.close(reason);
    this.#lanes.background.close(reason);
  }
}

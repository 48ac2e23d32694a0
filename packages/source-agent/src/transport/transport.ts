/**
 * The way to the dest that memory and disks share: FrameCompressor → BulkSender → connections. One
 * bandwidth limit and one window hold for all of it.
 *
 * Whoever has bulk data to send is a *filler*: it is asked for more, in turn with the others, when
 * there is room. What cannot wait, such as a mirrored write, is enqueued without being asked for.
 */
import { Deferred, type Clock } from "@vmferry/core";
import { BulkSender, type BulkConnection, type SendWindow } from "./bulk-sender.ts";
import { FrameCompressor } from "./frame-compressor.ts";

export interface Filler {
  /** There is room: send what is at hand. May be called when nothing is. */
  fill(): void;
}

export interface TransportOptions {
  readonly connections: readonly BulkConnection[];
  readonly creditBytes: number;
  readonly bandwidthBytesPerSecond: number | null;
  /** Both agents have zstd. */
  readonly compression: boolean;
  readonly clock: Clock;
  readonly window?: SendWindow;
  readonly onFailed: (error: unknown) => void;
}

export class Transport {
  readonly out: BulkSender;
  readonly frames: FrameCompressor;
  readonly #fillers: Filler[] = [];
  #guestWaits: () => boolean = () => false;
  #caughtUp = new Deferred();
  #stopped = false;
  #isAway = false;
  #reconnects = 0;

  constructor(options: TransportOptions) {
    const { onFailed } = options;
    const onRoom = (): void => {
      this.#fill();
    };
    this.out = new BulkSender({ ...options, onIdle: onRoom });
    this.frames = new FrameCompressor({
      out: this.out,
      enabled: options.compression,
      guestWaits: () => this.#guestWaits(),
      onReady: onRoom,
      onFailed,
    });
  }

  addFiller(filler: Filler): void {
    this.#fillers.push(filler);
  }

  /** Whom compression has to make way for. */
  yieldTo(guestWaits: () => boolean): void {
    this.#guestWaits = guestWaits;
  }

  /** A filler may go on. */
  get ready(): boolean {
    return !this.#stopped && this.frames.ready;
  }

  /** What the dest has not acknowledged, and what waits for it here. */
  get pendingBytes(): number {
    return this.frames.pendingBytes;
  }

  /** What waits here for the link; nothing, once nothing is sent any more. */
  get queuedBytes(): number {
    return this.#stopped ? 0 : this.frames.queuedBytes;
  }

  /** What a byte of the guest has become on the wire so far, at most 1. */
  get wireShare(): number {
    return this.frames.wireShare;
  }

  /**
   * Resolves when the link takes more, is lost, or nothing will ever be sent. Some frames may be at work in
   * the compressor then: while there is more to do, some always are.
   */
  caughtUp(): Promise<void> {
    if (this.#stopped || this.#isAway || this.ready) return Promise.resolve();
    return this.#caughtUp.promise;
  }

  /** Times that the link was away. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** The link is not there at present; what is sent waits for it. */
  get isAway(): boolean {
    return this.#isAway;
  }

  /** Whoever waits for it now would wait for nobody knows how long. */
  linkIsAway(): void {
    this.#isAway = true;
    this.#caughtUp.resolve();
    this.#caughtUp = new Deferred();
  }

  /** It is back, and how long it took says nothing about what it carries. */
  linkIsBack(): void {
    this.#isAway = false;
    this.#reconnects++;
    this.out.rate.paused();
  }

  stop(): void {
    this.#stopped = true;
    this.frames.stop();
    this.out.stop();
    this.#caughtUp.resolve();
  }

  /** Who was served first is served last the next time. */
  #fill(): void {
    if (this.#stopped) return;
    if (this.ready) {
      this.#caughtUp.resolve();
      this.#caughtUp = new Deferred();
    }
    const first = this.#fillers.shift();
    if (first === undefined) return;
    this.#fillers.push(first);
    for (const filler of [first, ...this.#fillers.slice(0, -1)]) {
      if (!this.ready) return;
      filler.fill();
    }
  }
}

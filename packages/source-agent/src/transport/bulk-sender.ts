/**
 * Frames on their way to the dest: a queue in order, spread over the bulk connections, sent as
 * credit, in-flight window and bandwidth limit allow.
 *
 * Limits: the dest's credit bounds what is under way; the window keeps it to some 40 ms of the
 * link, because what is under way at the stun is downtime (post-copy has a smaller one); the queue is bounded by its filler,
 * which stops reading from QEMU while `idle` is false.
 */
import type { Clock } from "@vmferry/core";
import {
  costsCredit,
  FrameEncoding,
  FrameKind,
  limits,
  sealFrame,
  violation,
} from "@vmferry/protocol";
import { LinkRate } from "../policy/link-rate.ts";
import { TokenBucket } from "../policy/token-bucket.ts";

/** How much may be under way: so long a time of the link, and what its round trips hold. */
export interface SendWindow {
  readonly ms: number;
  readonly roundTrips: number;
  readonly bytesMin: number;
  /** Before anything was measured. */
  readonly bytesFirst: number;
}

const WINDOW: SendWindow = {
  ms: 40,
  roundTrips: 2,
  bytesMin: 512 * 1024,
  bytesFirst: 4 * 1024 * 1024,
};

/** Of what may be under way: with less, the link would soon stand still. */
const BUSY_SHARE = 0.5;

/** One bulk connection. */
export interface BulkConnection {
  /** Takes the frame as it is; `flushed` is called when its buffer may be used again. */
  send(frame: Buffer, flushed: () => void): void;
  readonly bufferedBytes: number;
}

export interface OutboundFrame {
  /** Header place and payload. */
  readonly view: Buffer;
  readonly kind: FrameKind;
  readonly encoding: FrameEncoding;
  readonly pass: number;
  readonly block: number;
  /** Entries of the table before the data: runs of a PAGES frame, extents of a DISK frame. */
  readonly runs: number;
  readonly flushed: () => void;
}

/** What can be queued. */
export type OutboundEntry =
  | OutboundFrame
  | { readonly barrierOfPass: number }
  /** Tells every connection that no DISK frame follows. */
  | { readonly diskEnd: true }
  /** Makes one frame at a time when it can be sent; null when there are no more. */
  | { readonly next: () => OutboundFrame | null }
  | { readonly call: () => void };

export interface BulkSenderOptions {
  readonly connections: readonly BulkConnection[];
  readonly creditBytes: number;
  readonly bandwidthBytesPerSecond: number | null;
  readonly clock: Clock;
  readonly window?: SendWindow;
  /** The queue is empty and more could be sent. */
  readonly onIdle: () => void;
  /** Something went wrong where no caller could be told. */
  readonly onFailed: (error: unknown) => void;
}

export class BulkSender {
  readonly rate = new LinkRate();
  readonly #connections: readonly BulkConnection[];
  readonly #sequences: number[];
  readonly #creditBytesMax: number;
  readonly #clock: Clock;
  readonly #window: SendWindow;
  readonly #onIdle: () => void;
  readonly #onFailed: (error: unknown) => void;
  readonly #bucket: TokenBucket;
  readonly #queue: OutboundEntry[] = [];
  #cancelTimer: (() => void) | null = null;
  #inFlightBytes = 0;
  #sentBytes = 0;
  #roundTripMs = 0;
  #queuedBytes = 0;

  constructor(options: BulkSenderOptions) {
    this.#connections = options.connections;
    this.#sequences = options.connections.map(() => 0);
    this.#creditBytesMax = options.creditBytes;
    this.#clock = options.clock;
    this.#window = options.window ?? WINDOW;
    this.#onIdle = options.onIdle;
    this.#onFailed = options.onFailed;
    this.#bucket = new TokenBucket(options.bandwidthBytesPerSecond, options.clock.nowMs());
    this.rate.setLimit(options.bandwidthBytesPerSecond);
  }

  /** Frames that the dest has not acknowledged, and those that wait here. */
  get pendingBytes(): number {
    return this.#inFlightBytes + this.#queuedBytes;
  }

  /** Frames that wait here for the link. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Whole frames handed to the connections. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  get idle(): boolean {
    return this.#queue.length === 0 && this.#mayDataGo();
  }

  /**
   * The link, or the limit of the bandwidth, has enough to do for a while: whoever makes what is sent
   * next has time.
   */
  get isBusy(): boolean {
    if (this.#bucket.isShort(this.#clock.nowMs())) return true;
    return this.#inFlightBytes + this.#queuedBytes >= this.#roomBytes() * BUSY_SHARE;
  }

  setRoundTrip(ms: number): void {
    this.#roundTripMs = ms;
  }

  setBandwidthLimit(bytesPerSecond: number | null): void {
    this.#bucket.setLimit(bytesPerSecond, this.#clock.nowMs());
    this.rate.setLimit(bytesPerSecond);
    // The timer knows how long the old limit would have kept everybody waiting.
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#pump();
  }

  /** Bytes that did not have to wait for the limit, and went another way: the next ones wait longer. */
  spentElsewhere(bytes: number): void {
    const nowMs = this.#clock.nowMs();
    this.#bucket.spend(bytes, nowMs);
    // Whoever finds no room now may have nothing under way that would wake anybody.
    const waitMs = this.#bucket.waitMs(nowMs);
    if (waitMs > 0) this.#wakeAfter(waitMs);
  }

  enqueue(entry: OutboundEntry): void {
    this.#queue.push(entry);
    if ("view" in entry) this.#queuedBytes += entry.view.length;
    this.#pump();
  }

  /** The dest has written `bytes` of frames. Throws when it claims more than it was sent. */
  acknowledged(bytes: number): void {
    if (bytes > this.#inFlightBytes) throw violation("credit for more than was sent");
    this.#inFlightBytes -= bytes;
    this.rate.acknowledged(bytes, this.#clock.nowMs());
    this.#pump();
  }

  stop(): void {
    this.#cancelTimer?.();
    this.#queue.length = 0;
  }

  #pump(): void {
    while (this.#queue.length > 0 && this.#sendEntry(this.#queue[0]!));
    // Time has passed since the last entry was refused: whoever is not told "now" gets a timer.
    const waitMs = this.#bucket.waitMs(this.#clock.nowMs());
    const stuck = this.#queue.length > 0 && this.#windowIsOpen();
    if (waitMs > 0 || stuck) this.#wakeAfter(waitMs);
    else if (this.#queue.length === 0 && this.#windowIsOpen()) this.#onIdle();
  }

  /** False when the entry has to wait. */
  #sendEntry(entry: OutboundEntry): boolean {
    if ("call" in entry) {
      this.#queue.shift();
      entry.call();
      return true;
    }
    if ("barrierOfPass" in entry) {
      this.#queue.shift();
      this.#sendToAll(FrameKind.BARRIER, entry.barrierOfPass);
      return true;
    }
    if ("diskEnd" in entry) {
      this.#queue.shift();
      this.#sendToAll(FrameKind.DISK_END, 0);
      return true;
    }
    if (!this.#mayDataGo()) {
      this.rate.waited();
      return false;
    }
    if ("next" in entry) {
      const frame = entry.next();
      if (frame === null) this.#queue.shift();
      else this.#send(frame);
      return true;
    }
    this.#queue.shift();
    this.#queuedBytes -= entry.view.length;
    this.#send(entry);
    return true;
  }

  #send(frame: OutboundFrame): void {
    const { view, kind, encoding, pass, block, runs } = frame;
    const index = this.#connectionFor(frame);
    const sequence = this.#sequences[index]!++;
    sealFrame(view, { kind, encoding, pass, sequence, block, runs });
    if (costsCredit(kind)) this.#inFlightBytes += view.length;
    this.#sentBytes += view.length;
    this.#bucket.spend(view.length, this.#clock.nowMs());
    this.#connections[index]!.send(view, frame.flushed);
  }

  /** An empty frame behind everything that went before it on its connection. */
  #sendToAll(kind: FrameKind, pass: number): void {
    for (const [index, connection] of this.#connections.entries()) {
      const view = Buffer.alloc(limits.FRAME_HEADER_BYTES);
      const sequence = this.#sequences[index]!++;
      const rest = { encoding: FrameEncoding.RAW, sequence, block: 0, runs: 0 };
      sealFrame(view, { kind, pass, ...rest });
      connection.send(view, () => undefined);
    }
  }

  /** Opaque bytes keep their order only on one connection, and so do the frames of a disk. */
  #connectionFor({ kind, block }: OutboundFrame): number {
    if (kind === FrameKind.PAGES) return this.#leastBusy();
    return kind === FrameKind.DISK ? block % this.#connections.length : 0;
  }

  #leastBusy(): number {
    let best = 0;
    for (let i = 1; i < this.#connections.length; i++) {
      if (this.#connections[i]!.bufferedBytes < this.#connections[best]!.bufferedBytes) best = i;
    }
    return best;
  }

  #mayDataGo(): boolean {
    return this.#windowIsOpen() && this.#bucket.waitMs(this.#clock.nowMs()) === 0;
  }

  #windowIsOpen(): boolean {
    return this.#inFlightBytes <= this.#roomBytes();
  }

  /** What may be under way before the next frame. */
  #roomBytes(): number {
    const creditBytes = this.#creditBytesMax - limits.FRAME_BYTES_MAX;
    return Math.min(this.#windowBytes(), creditBytes);
  }

  #windowBytes(): number {
    const { ms, roundTrips, bytesMin, bytesFirst } = this.#window;
    const rate = this.rate.bytesPerSecond;
    if (rate === null) return bytesFirst;
    return Math.max(bytesMin, (rate * (ms + roundTrips * this.#roundTripMs)) / 1000);
  }

  /** Credit wakes the pump by itself; only the bandwidth limit needs a timer. */
  #wakeAfter(waitMs: number): void {
    this.#cancelTimer ??= this.#clock.after(waitMs, () => {
      this.#cancelTimer = null;
      try {
        this.#pump();
      } catch (error) {
        this.#onFailed(error);
      }
    });
  }
}

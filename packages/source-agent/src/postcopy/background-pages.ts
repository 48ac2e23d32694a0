/**
 * All pages that nobody waits for: those first that the guest is likely to need as soon as it runs,
 * then in ascending order from a cursor, as fast as the window of the background lane lets them, and
 * in turns with what vCPUs wait for (`Quiet`). A fault moves the cursor behind itself: what the guest
 * does next is likely there.
 */
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import type { Clock } from "@vmferry/core";
import { Quiet } from "../policy/quiet.ts";
import type { Filler, Transport } from "../transport/transport.ts";
import type { Push } from "./push.ts";
import type { PagesToSend } from "./pages-to-send.ts";
import type { FramePool, StoredFrame } from "./stored-frame.ts";

const { FRAME_PAGES_MAX, PAGE_BYTES } = limits;
/** Frames for which the store is read at the same time. */
const READS_MAX = 3;
/** Of a frame, those of zeros included: the dest's QEMU takes them one by one. */
const PAGES_MAX = 1024;
/** On a slow link a frame is smaller: a page that is asked for may have to wait for one. */
const FRAME_MS = 0.9;
const DATA_PAGES_MIN = 4;
const DATA_PAGES_FIRST = 16;

export interface BackgroundPagesOptions {
  readonly push: Push;
  readonly transport: Transport;
  readonly toSend: PagesToSend;
  readonly pool: FramePool;
  readonly isZero: (block: number, page: number) => boolean;
  /** Resolves with whether the frame is complete; what could not be read is taken care of. */
  readonly read: (frame: StoredFrame) => Promise<boolean>;
  readonly clock: Clock;
  readonly onFailed: (error: unknown) => void;
}

interface OnTheWay {
  readonly block: number;
  readonly pages: readonly number[];
}

export class BackgroundPages implements Filler {
  readonly #options: BackgroundPagesOptions;
  /** Frames between here and the link, in order. */
  readonly #onTheWay: OnTheWay[] = [];
  #push: Push;
  /** So many of the hot pages were picked, or had been sent before. */
  #pickedHot = 0;
  #cursor = { block: 0, page: 0 };
  #reading = 0;
  /** Of them, frames of hot pages. They take longer, and nothing overtakes them. */
  #readingHot = 0;
  #stopped = true;
  readonly #quiet: Quiet;
  #cancelTimer: (() => void) | null = null;

  constructor(options: BackgroundPagesOptions) {
    this.#options = options;
    this.#push = options.push;
    this.#quiet = new Quiet(options.clock.nowMs());
    options.transport.addFiller(this);
  }

  /** Nothing is under way, not even to the dest. */
  get idle(): boolean {
    const { transport } = this.#options;
    return this.#reading === 0 && this.#onTheWay.length === 0 && transport.pendingBytes === 0;
  }

  start(): void {
    this.#stopped = false;
    this.fill();
  }

  /** Hot pages may become known once, and not others later. */
  setPush(push: Push): void {
    this.#push = push;
    this.fill();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
  }

  jump(block: number, page: number): void {
    this.#cursor = { block, page };
  }

  /** A vCPU waits for a page. */
  asked(): void {
    this.#quiet.asked(this.#options.clock.nowMs());
  }

  /** Nobody waits for a page any more. */
  answered(): void {
    this.#quiet.answered(this.#options.clock.nowMs());
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.fill();
  }

  /** The link has taken the next frame: which pages it has. */
  frameSent(): OnTheWay {
    return this.#onTheWay.shift()!;
  }

  fill(): void {
    const { transport, onFailed } = this.#options;
    while (!this.#stopped && this.#reading < READS_MAX) {
      if (!transport.ready) return;
      if (this.#isQuiet()) return;
      const hot = this.#pickHot();
      if (hot === null && this.#readingHot > 0) return;
      const frame = hot ?? (this.#push.isRestDue ? this.#pick() : null);
      if (frame === null) return;
      this.#reading++;
      if (hot !== null) this.#readingHot++;
      this.#send(frame, hot !== null).catch(onFailed);
    }
  }

  #isQuiet(): boolean {
    const { clock, onFailed } = this.#options;
    const waitMs = this.#quiet.waitMs(clock.nowMs());
    if (waitMs === 0) return false;
    this.#cancelTimer ??= clock.after(waitMs, () => {
      this.#cancelTimer = null;
      try {
        this.fill();
      } catch (error) {
        onFailed(error);
      }
    });
    return true;
  }

  async #send(frame: StoredFrame, isHot: boolean): Promise<void> {
    const { transport, pool, read } = this.#options;
    const isComplete = await read(frame);
    this.#reading--;
    if (isHot) this.#readingHot--;
    if (this.#stopped || !isComplete) {
      pool.release(frame);
      this.fill();
      return;
    }
    const { block, runs } = frame;
    this.#onTheWay.push({ block, pages: [...frame.pages] });
    transport.frames.enqueue({
      view: frame.finish(),
      kind: FrameKind.PAGES,
      encoding: FrameEncoding.RAW,
      pass: 0,
      block,
      runs,
      flushed: () => {
        pool.release(frame);
      },
    });
    this.fill();
  }

  /** The same of hot pages, wherever they are. */
  #pickHot(): StoredFrame | null {
    const { toSend, pool, isZero } = this.#options;
    const dataPagesMax = this.#dataPagesMax();
    let frame: StoredFrame | null = null;
    const { hot } = this.#push;
    for (; this.#pickedHot < hot.length; this.#pickedHot++) {
      const { block, page } = hot[this.#pickedHot]!;
      if (frame !== null && (frame.block !== block || isFull(frame, dataPagesMax))) return frame;
      // It was asked for meanwhile, or the dest has it from other lanes.
      if (!toSend.isOpen(block, page)) continue;
      frame ??= pool.take(block);
      toSend.take(block, page);
      frame.add(page, isZero(block, page));
    }
    return frame;
  }

  /** The pages of the next frame, taken; null when nothing is open. */
  #pick(): StoredFrame | null {
    const { toSend, pool, isZero } = this.#options;
    let place = toSend.next(this.#cursor.block, this.#cursor.page);
    if (place === null) return null;
    const { block } = place;
    const frame = pool.take(block);
    const dataPagesMax = this.#dataPagesMax();
    let page = place.page;
    while (place !== null && place.block === block && place.page >= page) {
      page = place.page + 1;
      toSend.take(block, place.page);
      frame.add(place.page, isZero(block, place.page));
      if (isFull(frame, dataPagesMax)) break;
      place = toSend.next(block, page);
    }
    this.#cursor = { block, page };
    return frame;
  }

  #dataPagesMax(): number {
    const rate = this.#options.transport.out.rate.bytesPerSecond;
    if (rate === null) return DATA_PAGES_FIRST;
    const pages = Math.floor((rate * FRAME_MS) / 1000 / PAGE_BYTES);
    return Math.min(FRAME_PAGES_MAX, Math.max(DATA_PAGES_MIN, pages));
  }
}

function isFull(frame: StoredFrame, dataPagesMax: number): boolean {
  return frame.full || frame.dataPages >= dataPagesMax || frame.pages.length >= PAGES_MAX;
}

/**
 * How fast a drain goes that begins in the first pass, and what of it goes over the link before the
 * dest is told what it lacks. At first nothing: the sooner QEMU was read twice, the less of what was
 * read is out of date, and sending takes processors from reading. Then everything that is cold,
 * however long that takes, for it is sent once; QEMU is read just often enough meanwhile.
 */
import type { Clock } from "@vmferry/core";
import type { FrameCompressor } from "../transport/frame-compressor.ts";
import type { Transport } from "../transport/transport.ts";
import type { DrainLink, DrainStore } from "./drain.ts";
import type { RamSender } from "./ram-sender.ts";

/** A guest whose first pass takes longer is so large that the link had better not wait for its end. */
const SHARE_AFTER_MS = 1000;
/** Of a third pass that brings nothing of which it could be told, because the guest does nothing any more. */
const COUNTING_MS_MAX = 1000;
/**
 * Between two passes, while cold pages go out: QEMU would make one of a few pages after the other,
 * with the processors that the link needs, and stun the guest at the end of one that is so short that
 * no vCPU has run in it.
 */
const REST_MS_MIN = 50;
const REST_MS_MAX = 1000;
/** Of the time that cold pages have taken so far: what a rest of QEMU's costs is read afterwards. */
const REST_SHARE = 0.1;

export interface DrainPaceOptions {
  readonly sender: Pick<
    RamSender,
    "drainStage" | "counters" | "beginCold" | "fillCold" | "endCold"
  >;
  readonly transport: Pick<Transport, "ready">;
  readonly frames: Pick<FrameCompressor, "compressPages">;
  readonly store: Pick<DrainStore, "written"> & { readonly hasRoom: boolean };
  readonly clock: Clock;
  /** Takes care of what a step throws. */
  readonly attempt: (step: () => void) => void;
  /** QEMU may be read again. */
  readonly onRested: () => void;
}

export class DrainPace implements DrainLink {
  readonly #options: DrainPaceOptions;
  readonly #sharesFromMs: number;
  /** The last pass that somebody has rested after. */
  #pass = 0;
  #coldSinceMs = 0;
  #isHurried = false;
  #isFillDue = false;
  #isResting = false;
  #isSecondPassOver = false;
  /** It is no longer waited for what a third pass would bring. */
  #isCountingOver = false;
  /** No page goes over the link any more, unless the store has no room. */
  #goesNow = false;
  /** What was put in the store in the first two passes can be read. */
  #isWritten = false;
  #cancelRest = (): void => undefined;
  #cancelCounting = (): void => undefined;

  constructor(options: DrainPaceOptions) {
    this.#options = options;
    this.#sharesFromMs = options.clock.nowMs() + SHARE_AFTER_MS;
    this.isShared = false;
  }

  get hasRoom(): boolean {
    return this.#options.transport.ready;
  }

  /** As of the last chunk. */
  isShared: boolean;

  /** A chunk of QEMU's stream is about to be taken. */
  chunkCame(): void {
    const { store, clock } = this.#options;
    const isLarge = clock.nowMs() >= this.#sharesFromMs && !this.#goesNow;
    this.isShared = !store.hasRoom || isLarge;
  }

  /** It was taken: may the next one be? */
  mayRead(): boolean {
    if (this.#goesNow) this.#endCold();
    if (this.#isSecondPassOver) this.#beginCold();
    if (this.#isCountingOver) this.#endCounting();
    const { sender, clock } = this.#options;
    const { pass } = sender.counters;
    const isRestDue = sender.drainStage === "cold" && pass !== this.#pass && !this.#isHurried;
    if (this.#isResting || !isRestDue) return !this.#isResting;
    this.#pass = pass;
    this.#isResting = true;
    const restMs = REST_SHARE * (clock.nowMs() - this.#coldSinceMs);
    const boundedMs = Math.min(REST_MS_MAX, Math.max(REST_MS_MIN, restMs));
    this.#cancelRest = clock.after(boundedMs, () => {
      this.#endRest();
    });
    return false;
  }

  /** As soon as the first pass is read, the dest is told what it lacks. */
  goNow(): void {
    if (this.#goesNow) return;
    this.#goesNow = true;
    this.#endCold();
    if (this.#isResting) this.#endRest();
  }

  /** Nobody rests any more. */
  hurry(): void {
    this.#isHurried = true;
    if (this.#isResting) this.#endRest();
  }

  /** QEMU has begun its third pass: what is read soon shows which pages its second did not bring. */
  secondPassOver(): void {
    if (this.#isSecondPassOver) return;
    this.#isSecondPassOver = true;
    const { clock } = this.#options;
    this.#cancelCounting = clock.after(COUNTING_MS_MAX, () => {
      this.#isCountingOver = true;
      this.#endCounting();
    });
  }

  /** What was read of the first pass may be behind QEMU: then its end is waited for. */
  #endCounting(): void {
    if (this.#options.sender.drainStage === "counting") this.#endCold();
  }

  #endCold(): void {
    const { sender, attempt } = this.#options;
    if (sender.drainStage === "shared") return;
    attempt(() => {
      sender.endCold();
    });
  }

  /** There is room on the link. */
  fill(): void {
    if (!this.#isWritten) return;
    this.#options.attempt(() => {
      this.#fill();
    });
  }

  #beginCold(): void {
    const { sender, store, frames, clock } = this.#options;
    if (sender.drainStage !== "counting" || sender.counters.pass < 3) return;
    sender.beginCold();
    this.#coldSinceMs = clock.nowMs();
    frames.compressPages(true);
    void store.written().then(
      () => {
        this.#isWritten = true;
        this.fill();
      },
      // The store has told of it itself.
      () => undefined,
    );
  }

  #fill(): void {
    const { sender, frames } = this.#options;
    if (sender.fillCold()) {
      if (this.hasRoom) this.#fillSoon();
      return;
    }
    this.#isWritten = false;
    frames.compressPages(false);
    if (this.#isResting) this.#endRest();
  }

  #fillSoon(): void {
    if (this.#isFillDue) return;
    this.#isFillDue = true;
    setImmediate(() => {
      this.#isFillDue = false;
      this.fill();
    });
  }

  #endRest(): void {
    this.#cancelRest();
    this.#isResting = false;
    this.#options.onRested();
  }

  stop(): void {
    this.#isWritten = false;
    this.#cancelRest();
    this.#cancelCounting();
  }
}

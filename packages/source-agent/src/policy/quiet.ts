/**
 * When the background keeps quiet for what vCPUs wait for. What is asked for is small, and what is
 * under way in the background, in the kernel's queue and at the dest, is most of what it waits for. So
 * while pages are asked for again and again the background goes in turns: quiet until nobody has asked
 * for a moment or its share of the time is used up, then busy until it has earned that again. In quiet
 * time many faults are served, one soon after the other, and the link loses little: they are its bytes
 * as well.
 */
const SHARE = 0.5;
/** A turn much shorter ends before the queues are empty. */
const TURN_MS = 20;
/** Who has what it asked for, and has asked for nothing else for so long, has something else to do. */
const PAUSE_MS = 4;

export class Quiet {
  /** Of a turn, what is left or was earned. */
  #earnedMs = TURN_MS;
  #untilMs = -Infinity;
  #lastMs: number;

  constructor(nowMs: number) {
    this.#lastMs = nowMs;
  }

  /** Somebody waits for a page. */
  asked(nowMs: number): void {
    this.#settle(nowMs);
    if (this.#untilMs > nowMs || this.#earnedMs >= TURN_MS) this.#untilMs = nowMs + this.#earnedMs;
  }

  /** Nobody waits for a page any more. */
  answered(nowMs: number): void {
    this.#settle(nowMs);
    this.#untilMs = Math.min(this.#untilMs, nowMs + PAUSE_MS);
  }

  /** Until the background may go on; 0 = now. */
  waitMs(nowMs: number): number {
    return Math.max(0, this.#untilMs - nowMs);
  }

  #settle(nowMs: number): void {
    const elapsedMs = nowMs - this.#lastMs;
    const quietMs = Math.min(elapsedMs, Math.max(0, this.#untilMs - this.#lastMs));
    this.#lastMs = nowMs;
    const earnedMs = this.#earnedMs - quietMs + elapsedMs * SHARE;
    this.#earnedMs = Math.min(TURN_MS, Math.max(0, earnedMs));
  }
}

/**
 * How many units the background pull has under way. What is under way delays what the guest waits
 * for, on the same connection; so the window grows until it makes answers later by `QUEUE_MS` than
 * the quickest answers of late were, and shrinks where it does: the idea of LEDBAT (RFC 6817).
 */
const QUEUE_MS = 40;
const UNITS_MIN = 2;
/** Units are 256 KiB at most, so this is 32 MiB at most. */
const UNITS_MAX = 128;
const SHRINK = 0.7;
/**
 * The quickest answer is that of one of the last two intervals: paths and limits change. Each begins
 * with a small window, or the delay of its own making would pass for that of the path.
 */
const INTERVAL_MS = 10_000;

export class PullWindow {
  #window = UNITS_MIN;
  #starting = true;
  #quickestMs = Infinity;
  #quickestBeforeMs = Infinity;
  #intervalMs: number | null = null;
  #shrunkMs = -Infinity;

  get units(): number {
    return Math.floor(this.#window);
  }

  /** An answer came `delayMs` after it was asked for. */
  answered(delayMs: number, nowMs: number): void {
    this.#observe(delayMs, nowMs);
    const base = Math.min(this.#quickestMs, this.#quickestBeforeMs);
    if (delayMs <= base + QUEUE_MS) {
      const grown = this.#window + (this.#starting ? 1 : 1 / this.#window);
      this.#window = Math.min(UNITS_MAX, grown);
      return;
    }
    // Answers to what was asked for before the last shrinking say nothing of the smaller window.
    if (nowMs - delayMs < this.#shrunkMs) return;
    this.#starting = false;
    this.#shrunkMs = nowMs;
    this.#window = Math.max(UNITS_MIN, this.#window * SHRINK);
  }

  #observe(delayMs: number, nowMs: number): void {
    this.#intervalMs ??= nowMs;
    if (nowMs - this.#intervalMs >= INTERVAL_MS) {
      this.#intervalMs = nowMs;
      this.#quickestBeforeMs = this.#quickestMs;
      this.#quickestMs = Infinity;
      this.#window = UNITS_MIN;
      this.#shrunkMs = nowMs;
      this.#starting = true;
    }
    this.#quickestMs = Math.min(this.#quickestMs, delayMs);
  }
}

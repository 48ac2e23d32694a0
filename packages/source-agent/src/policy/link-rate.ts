/**
 * What the link carries, judged by what the dest acknowledged in windows of 100 ms. A window in
 * which the sender had to wait for the link is a measurement; one in which it had nothing to send
 * is only a lower bound. A bandwidth limit holds from the moment that it is set: what was measured
 * without it would have the guest stunned with far more to send than the limit lets through.
 */
const WINDOW_MS = 100;
const WINDOW_MS_MAX = 2000;
const WEIGHT = 0.3;

export class LinkRate {
  #bytesPerSecond: number | null = null;
  #windowStartMs: number | null = null;
  #windowBytes = 0;
  #waited = false;
  #limit = Infinity;

  /** Null until the first window is over. */
  get bytesPerSecond(): number | null {
    return this.#bytesPerSecond === null ? null : Math.min(this.#bytesPerSecond, this.#limit);
  }

  /** Null for none. */
  setLimit(bytesPerSecond: number | null): void {
    this.#limit = bytesPerSecond ?? Infinity;
  }

  acknowledged(bytes: number, nowMs: number): void {
    this.#windowStartMs ??= nowMs;
    this.#windowBytes += bytes;
    const elapsedMs = nowMs - this.#windowStartMs;
    if (elapsedMs < WINDOW_MS) return;
    // After a pause the window says how long nothing was sent, not what the link carries.
    if (elapsedMs < WINDOW_MS_MAX && this.#windowBytes > 0)
      this.#close((this.#windowBytes * 1000) / elapsedMs);
    this.#windowStartMs = nowMs;
    this.#windowBytes = 0;
    this.#waited = false;
  }

  /** The sender had more to send than the link took. */
  waited(): void {
    this.#waited = true;
  }

  /** The window that has begun is no measurement. */
  paused(): void {
    this.#windowStartMs = null;
    this.#windowBytes = 0;
    this.#waited = false;
  }

  #close(sample: number): void {
    const known = this.#bytesPerSecond;
    if (known === null || (!this.#waited && sample > known)) this.#bytesPerSecond = sample;
    else if (this.#waited) this.#bytesPerSecond = known * (1 - WEIGHT) + sample * WEIGHT;
  }
}

/** An exponentially weighted mean over time: a sample counts half as much after `halfLifeMs`. */
export class RateEwma {
  readonly #halfLifeMs: number;
  #perSecond: number | null = null;
  #lastMs: number | null = null;

  constructor(halfLifeMs: number) {
    this.#halfLifeMs = halfLifeMs;
  }

  /** Units a second, or null before the second sample. */
  get perSecond(): number | null {
    return this.#perSecond;
  }

  /** `amount` units since the previous sample. */
  sample(amount: number, nowMs: number): void {
    const lastMs = this.#lastMs;
    this.#lastMs = nowMs;
    if (lastMs === null || nowMs <= lastMs) return;
    const elapsedMs = nowMs - lastMs;
    const rate = (amount * 1000) / elapsedMs;
    const keep = 0.5 ** (elapsedMs / this.#halfLifeMs);
    this.#perSecond = this.#perSecond === null ? rate : this.#perSecond * keep + rate * (1 - keep);
  }
}

/** An exponentially weighted mean over time: a sample counts half as much after `halfLifeMs`. */
export class RateEwma {
  readonly #halfLifeMs: number;
  #perSecond: number | null = null;
  #lastMs: number | null = null;
  /** Units that came without any time passing: they count in the next interval. */
  #carried = 0;

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
    if (lastMs === null) return;
    const elapsedMs = nowMs - lastMs;
    this.#carried += amount;
    if (elapsedMs <= 0) return;
    const rate = (this.#carried * 1000) / elapsedMs;
    this.#carried = 0;
    const keep = 0.5 ** (elapsedMs / this.#halfLifeMs);
    this.#perSecond = this.#perSecond === null ? rate : this.#perSecond * keep + rate * (1 - keep);
  }
}

/** A bandwidth limit: bytes may be spent as long as the balance is positive. */
const BURST_MS = 50;
const SHORT_MS = BURST_MS / 2;

export class TokenBucket {
  #bytesPerSecond: number | null;
  #balance = 0;
  #lastMs: number;

  constructor(bytesPerSecond: number | null, nowMs: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#lastMs = nowMs;
  }

  setLimit(bytesPerSecond: number | null, nowMs: number): void {
    this.#refill(nowMs);
    this.#bytesPerSecond = bytesPerSecond;
    this.#balance = Math.min(this.#balance, 0);
  }

  spend(bytes: number, nowMs: number): void {
    this.#refill(nowMs);
    if (this.#bytesPerSecond !== null) this.#balance -= bytes;
  }

  /** Milliseconds until something may be sent; 0 = now. */
  waitMs(nowMs: number): number {
    this.#refill(nowMs);
    if (this.#bytesPerSecond === null || this.#balance >= 0) return 0;
    return Math.ceil((-this.#balance * 1000) / this.#bytesPerSecond);
  }

  /** Whoever spends has spent most of what there is: the limit is what they wait for. */
  isShort(nowMs: number): boolean {
    this.#refill(nowMs);
    const rate = this.#bytesPerSecond;
    return rate !== null && this.#balance < (rate * SHORT_MS) / 1000;
  }

  #refill(nowMs: number): void {
    const elapsedMs = nowMs - this.#lastMs;
    this.#lastMs = nowMs;
    const rate = this.#bytesPerSecond;
    if (rate === null) {
      this.#balance = 0;
      return;
    }
    const burst = (rate * BURST_MS) / 1000;
    this.#balance = Math.min(burst, this.#balance + (rate * elapsedMs) / 1000);
  }
}

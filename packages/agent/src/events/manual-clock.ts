import type { Clock } from "@vmferry/core";

interface Due {
  readonly atMs: number;
  readonly callback: () => void;
}

/** For tests: time stands still until `advance` moves it, running what becomes due in order. */
export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #epochMs: number;
  readonly #due = new Set<Due>();

  constructor(epochMs = Date.parse("2030-01-01T00:00:00Z")) {
    this.#epochMs = epochMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  date(): Date {
    return new Date(this.#epochMs + this.#nowMs);
  }

  /** What waits for time to pass. */
  get timerCount(): number {
    return this.#due.size;
  }

  after(ms: number, callback: () => void): () => void {
    const due = { atMs: this.#nowMs + ms, callback };
    this.#due.add(due);
    return () => {
      this.#due.delete(due);
    };
  }

  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      const next = [...this.#due]
        .filter(({ atMs }) => atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#due.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
    }
    this.#nowMs = untilMs;
  }
}

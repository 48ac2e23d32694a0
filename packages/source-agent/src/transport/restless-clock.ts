import type { Clock } from "@vmferry/core";

/** For tests: time that goes on between any two looks at it, as real time does. */
export class RestlessClock implements Clock {
  readonly #jittersMs: readonly number[];
  readonly #due: { atMs: number; callback: () => void }[] = [];
  #nowMs = 0;
  #looks = 0;

  constructor(jittersMs: readonly number[]) {
    this.#jittersMs = jittersMs;
  }

  get timerCount(): number {
    return this.#due.length;
  }

  nowMs(): number {
    this.#nowMs += this.#jittersMs[this.#looks++ % this.#jittersMs.length]!;
    return this.#nowMs;
  }

  date(): Date {
    return new Date(0);
  }

  after(ms: number, callback: () => void): () => void {
    const due = { atMs: this.#nowMs + ms, callback };
    this.#due.push(due);
    return () => {
      this.#due.splice(this.#due.indexOf(due), 1);
    };
  }

  advance(byMs: number): void {
    this.#nowMs += byMs;
    const due = this.#due.filter(({ atMs }) => atMs <= this.#nowMs);
    for (const each of due) this.#run(each);
  }

  /** Goes to where the first timer is due and runs it. */
  advanceToNext(): void {
    const next = this.#due.toSorted((a, b) => a.atMs - b.atMs)[0];
    if (next === undefined) return;
    this.#nowMs = Math.max(this.#nowMs, next.atMs);
    this.#run(next);
  }

  #run(due: { atMs: number; callback: () => void }): void {
    this.#due.splice(this.#due.indexOf(due), 1);
    due.callback();
  }
}

/**
 * Virtual time. Events wait in one heap; of those that are due at the same instant the seed decides
 * which is first. Between two events every promise that can settle has settled.
 */
import type { Random } from "./random.ts";

interface Due {
  readonly atMs: number;
  readonly order: number;
  /** Beats of the guest and of the link, which say nothing about how far a migration has come. */
  readonly isBeat: boolean;
  run: (() => void) | null;
}

export class Scheduler {
  readonly #random: Random;
  readonly #heap: Due[] = [];
  #nowMs = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** The returned function calls it off. */
  after(ms: number, run: () => void, isBeat = false): () => void {
    const due = { atMs: this.#nowMs + Math.max(0, ms), order: this.#random.next(), isBeat, run };
    this.#push(due);
    return () => {
      (due as Due).run = null;
    };
  }

  /** Resolves after the next event and what it sets going: whether that was a beat; null at the end. */
  async step(): Promise<{ readonly isBeat: boolean } | null> {
    for (;;) {
      const due = this.#pop();
      if (due === null) return null;
      if (due.run === null) continue;
      this.#nowMs = due.atMs;
      due.run();
      await drained();
      return due;
    }
  }

  #push(due: Due): void {
    const heap = this.#heap;
    let at = heap.push(due) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(due, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = due;
  }

  #pop(): Due | null {
    const heap = this.#heap;
    const [first] = heap;
    const last = heap.pop();
    if (first === undefined || last === undefined) return null;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      let child = heap[left];
      if (child === undefined) break;
      const right = heap[left + 1];
      const isRight = right !== undefined && isBefore(right, child);
      if (isRight) child = right;
      if (!isBefore(child, last)) break;
      heap[at] = child;
      at = isRight ? left + 1 : left;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Due, b: Due): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** A tick comes after all microtasks, and does not cost a turn of the event loop. */
export function drained(): Promise<void> {
  return new Promise((resolve) => {
    process.nextTick(resolve);
  });
}

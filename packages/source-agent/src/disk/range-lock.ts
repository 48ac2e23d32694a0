/**
 * Ranges of a disk that are being written or copied. Two that overlap take turns, in the order in
 * which they were asked for; so a copy never reads half a write, and what goes to the dest has the
 * order that it had here.
 *
 * The list is short: it is bounded by the requests that the export takes at once and the copies
 * under way.
 */
export interface RangeHold {
  readonly start: number;
  readonly end: number;
}

interface Waiting extends RangeHold {
  readonly go: () => void;
}

export class RangeLock {
  readonly #held = new Set<RangeHold>();
  readonly #waiting: Waiting[] = [];

  /** The hold at once where nothing is in the way, else a promise of it. */
  acquire(start: number, length: number): RangeHold | Promise<RangeHold> {
    const range = { start, end: start + length };
    if (!this.#blocked(range, this.#waiting.length)) {
      this.#held.add(range);
      return range;
    }
    return new Promise((resolve) => {
      const waiting: Waiting = {
        ...range,
        go: () => {
          resolve(waiting);
        },
      };
      this.#waiting.push(waiting);
    });
  }

  release(hold: RangeHold): void {
    this.#held.delete(hold);
    for (let i = 0; i < this.#waiting.length;) {
      const waiting = this.#waiting[i]!;
      if (this.#blocked(waiting, i)) {
        i++;
        continue;
      }
      this.#waiting.splice(i, 1);
      this.#held.add(waiting);
      waiting.go();
    }
  }

  /** Something held, or one of the first `before` that wait, is in the way. */
  #blocked(range: RangeHold, before: number): boolean {
    for (const held of this.#held) if (overlap(held, range)) return true;
    for (let i = 0; i < before; i++) if (overlap(this.#waiting[i]!, range)) return true;
    return false;
  }
}

function overlap(a: RangeHold, b: RangeHold): boolean {
  return a.start < b.end && b.start < a.end;
}

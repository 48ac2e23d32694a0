/** Chance with a seed, and whose turn is next among those that wait for it. */
export class Disorder {
  readonly #waiting: (() => void)[] = [];
  #state: number;

  constructor(salt: number) {
    this.#state = salt >>> 0;
  }

  /** At least 0 and less than `count`. */
  pick(count: number): number {
    return Math.floor(this.#random() * count);
  }

  chance(share: number): boolean {
    return this.#random() < share;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Resolves when `advance` has chosen the caller. */
  turn(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  /** Lets one of those that wait go on. */
  advance(): void {
    const [go] = this.#waiting.splice(this.pick(this.#waiting.length), 1);
    go?.();
  }

  /** mulberry32 */
  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
}

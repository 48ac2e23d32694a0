/** Units that a dest has asked for and that nobody is at work on: the urgent ones, and the rest. */
import type { UnitRun } from "@vmferry/protocol";

export interface AskedRun extends UnitRun {
  readonly disk: number;
}

interface Queued extends AskedRun {
  first: number;
  count: number;
}

export class AskedUnits {
  readonly #urgent: Queued[] = [];
  readonly #background: Queued[] = [];
  #units = 0;

  get units(): number {
    return this.#units;
  }

  get hasBackground(): boolean {
    return this.#background.length > 0;
  }

  add({ disk, first, count }: AskedRun, urgent: boolean): void {
    if (urgent) this.#takeOut({ disk, first, count });
    (urgent ? this.#urgent : this.#background).push({ disk, first, count });
    this.#units += count;
  }

  takeUrgent(count: number): AskedRun | null {
    return this.#takeFrom(this.#urgent, count);
  }

  takeBackground(count: number): AskedRun | null {
    return this.#takeFrom(this.#background, count);
  }

  /** Takes up to `countMax` units that come next, as they were asked for; how many there were. */
  takeNext({ disk, first }: Pick<AskedRun, "disk" | "first">, countMax: number): number {
    for (const queue of [this.#urgent, this.#background]) {
      const next = queue[0];
      if (next?.disk !== disk || next.first !== first) continue;
      return countMax > 0 ? this.#takeFrom(queue, countMax)!.count : 0;
    }
    return 0;
  }

  clear(): void {
    this.#urgent.length = 0;
    this.#background.length = 0;
    this.#units = 0;
  }

  #takeFrom(queue: Queued[], countMax: number): AskedRun | null {
    const next = queue[0];
    if (next === undefined) return null;
    const { disk, first } = next;
    const count = Math.min(countMax, next.count);
    next.first += count;
    next.count -= count;
    if (next.count === 0) queue.shift();
    this.#units -= count;
    return { disk, first, count };
  }

  /** What is urgent now, the background does not have to answer once more. */
  #takeOut({ disk, first, count }: AskedRun): void {
    const end = first + count;
    for (let i = 0; i < this.#background.length; i++) {
      const queued = this.#background[i]!;
      const from = Math.max(queued.first, first);
      const until = Math.min(queued.first + queued.count, end);
      if (queued.disk !== disk || from >= until) continue;
      const rest = { disk, first: until, count: queued.first + queued.count - until };
      queued.count = from - queued.first;
      this.#units -= until - from;
      const parts = [queued, rest].filter((part) => part.count > 0);
      this.#background.splice(i, 1, ...parts);
      i += parts.length - 1;
    }
  }
}

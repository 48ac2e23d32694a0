/**
 * Which missing units of a lazy disk are asked for next while nobody waits for them: first what lies
 * ahead of where the guest reads, the newest place first and the further the longer it goes on there;
 * then everything, from the beginning of the disk to its end.
 */
import type { UnitRun } from "@vmferry/protocol";

const STREAMS_MAX = 16;
const AHEAD_MIN = 2;
const AHEAD_MAX = 64;

interface Stream {
  /** The next unit that goes on with it. */
  at: number;
  ahead: number;
}

export class PullOrder {
  readonly #units: number;
  /** The newest is the last. */
  readonly #streams: Stream[] = [];
  readonly #deferred = new Set<number>();
  #cursor = 0;

  constructor(units: number) {
    this.#units = units;
  }

  /** The guest has asked for these units, and they were missing. */
  demanded({ first, count }: UnitRun): void {
    const end = first + count;
    const goesOn = this.#streams.findIndex(({ at, ahead }) => first >= at && first <= at + ahead);
    const [stream] = goesOn === -1 ? [undefined] : this.#streams.splice(goesOn, 1);
    const ahead = stream === undefined ? AHEAD_MIN : Math.min(AHEAD_MAX, stream.ahead * 2);
    this.#streams.push({ at: end, ahead });
    if (this.#streams.length > STREAMS_MAX) this.#streams.shift();
  }

  /** Could not be had just now. */
  defer(unit: number): void {
    this.#deferred.add(unit);
  }

  /** What was deferred is worth another try. */
  retry(): void {
    this.#deferred.clear();
  }

  get deferred(): number {
    return this.#deferred.size;
  }

  /** Units one behind another, `countMax` at most, all `wanted`; null where there are none. */
  next(wanted: (unit: number) => boolean, countMax: number): UnitRun | null {
    const takes = (unit: number): boolean => wanted(unit) && !this.#deferred.has(unit);
    for (let i = this.#streams.length - 1; i >= 0; i--) {
      const { at, ahead } = this.#streams[i]!;
      const run = this.#find(takes, { from: at, end: at + ahead, countMax });
      if (run !== null) return run;
    }
    const { from, end } = { from: this.#cursor, end: this.#units };
    const run =
      this.#find(takes, { from, end, countMax }) ??
      this.#find(takes, { from: 0, end: from, countMax });
    if (run !== null) this.#cursor = run.first + run.count;
    return run;
  }

  #find(
    takes: (unit: number) => boolean,
    range: { readonly from: number; readonly end: number; readonly countMax: number },
  ): UnitRun | null {
    const end = Math.min(range.end, this.#units);
    let first = range.from;
    while (first < end && !takes(first)) first++;
    if (first >= end) return null;
    let count = 1;
    while (count < range.countMax && first + count < end && takes(first + count)) count++;
    return { first, count };
  }
}

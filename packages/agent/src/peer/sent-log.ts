/**
 * What was sent to the peer and may not have come: kept in order until the peer has counted it. Both
 * sides count, so nothing carries a number. Bounded by `countMax`; who sends more is told.
 */
import { violation } from "@vmferry/protocol";

export class SentLog<T> {
  readonly #kept: T[] = [];
  readonly #countMax: number;
  /** How many came before the first that is kept. */
  #receivedCount = 0;

  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  /** Whether there is room for one more. */
  get full(): boolean {
    return this.#kept.length >= this.#countMax;
  }

  /** In order. */
  get kept(): readonly T[] {
    return this.#kept;
  }

  /** How many came before the first that is kept. */
  get receivedCount(): number {
    return this.#receivedCount;
  }

  get sentCount(): number {
    return this.#receivedCount + this.#kept.length;
  }

  push(sent: T): void {
    this.#kept.push(sent);
  }

  /**
   * The peer has so many of all that was ever sent; returns what need not be kept any more. A count
   * that was overtaken by a higher one says nothing new. Throws for more than was sent.
   */
  received(count: number): readonly T[] {
    if (count > this.sentCount) throw violation("more received than was sent");
    if (count <= this.#receivedCount) return [];
    const dropped = this.#kept.splice(0, count - this.#receivedCount);
    this.#receivedCount = count;
    return dropped;
  }
}

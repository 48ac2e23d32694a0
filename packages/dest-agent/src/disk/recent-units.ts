import { Bitmap } from "@vmferry/core";

/** Units that were touched of late: in this interval or in the one before. Two bits a unit. */
export class RecentUnits {
  #now: Bitmap;
  #before: Bitmap;

  constructor(units: number) {
    this.#now = new Bitmap(units);
    this.#before = new Bitmap(units);
  }

  add(unit: number): void {
    this.#now.testAndSet(unit);
  }

  has(unit: number): boolean {
    return this.#now.has(unit) || this.#before.has(unit);
  }

  /** Ends the interval: what was not touched in it, nor is from now on, is forgotten by the next end. */
  endInterval(): void {
    const oldest = this.#before;
    oldest.clearAll();
    this.#before = this.#now;
    this.#now = oldest;
  }
}

import { Bitmap } from "@vmferry/core";
import type { DirtyTracker } from "./dirty-tracker.ts";

/** The change-block bitmap: exact, one bit a block. */
export class BitmapTracker implements DirtyTracker {
  readonly #bits: Bitmap;
  #count = 0;

  constructor(blocks: number) {
    this.#bits = new Bitmap(blocks);
  }

  get count(): number {
    return this.#count;
  }

  mark(block: number): void {
    if (!this.#bits.testAndSet(block)) this.#count++;
  }

  has(block: number): boolean {
    return this.#bits.has(block);
  }

  clear(): void {
    this.#bits.clearAll();
    this.#count = 0;
  }
}

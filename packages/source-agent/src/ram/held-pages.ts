/**
 * Pages that are held back because they keep coming: the latest content of each, in a slab of a
 * fixed size. A page leaves when it has cooled, when the store shrinks, or at the stun.
 */
import { assert } from "@vmferry/core";
import { limits } from "@vmferry/protocol";

const { PAGE_BYTES } = limits;
const SLAB_PAGES = 256;

export class HeldPages {
  readonly #pagesMax: number;
  readonly #slabs: Buffer[] = [];
  readonly #slotOf = new Map<number, number>();
  readonly #cameMs: Float64Array;
  readonly #freeSlots: number[] = [];
  #slotsMade = 0;

  /** @param pagesMax memory that the store may ever take, in pages */
  constructor(pagesMax: number) {
    this.#pagesMax = pagesMax;
    this.#cameMs = new Float64Array(pagesMax);
  }

  get count(): number {
    return this.#slotOf.size;
  }

  get bytes(): number {
    return this.count * PAGE_BYTES;
  }

  has(index: number): boolean {
    return this.#slotOf.has(index);
  }

  /** Keeps the page at source[offset]; false when the store is full and does not hold it yet. */
  hold(index: number, source: Buffer, offset: number, nowMs: number): boolean {
    const slot = this.#slotOf.get(index) ?? this.#takeSlot(index);
    if (slot === undefined) return false;
    source.copy(this.#slab(slot), this.#offset(slot), offset, offset + PAGE_BYTES);
    this.#cameMs[slot] = nowMs;
    // Moves it to the young end: a Map iterates in the order of insertion.
    this.#slotOf.delete(index);
    this.#slotOf.set(index, slot);
    return true;
  }

  /** Forgets the page: what replaced it was or will be sent. */
  drop(index: number): void {
    const slot = this.#slotOf.get(index);
    if (slot === undefined) return;
    this.#slotOf.delete(index);
    this.#freeSlots.push(slot);
  }

  /** The page that has not come for longest, if any. */
  oldest(): { readonly index: number; readonly cameMs: number } | null {
    for (const [index, slot] of this.#slotOf) return { index, cameMs: this.#cameMs[slot]! };
    return null;
  }

  /** Copies the page out and forgets it. */
  release(index: number, into: Buffer): void {
    const slot = this.#slotOf.get(index);
    assert(slot !== undefined, "a released page was held");
    const offset = this.#offset(slot);
    this.#slab(slot).copy(into, 0, offset, offset + PAGE_BYTES);
    this.drop(index);
  }

  #takeSlot(index: number): number | undefined {
    const slot =
      this.#freeSlots.pop() ?? (this.#slotsMade < this.#pagesMax ? this.#slotsMade++ : undefined);
    if (slot !== undefined) {
      this.#slotOf.set(index, slot);
    }
    return slot;
  }

  #slab(slot: number): Buffer {
    const slab = Math.floor(slot / SLAB_PAGES);
    return (this.#slabs[slab] ??= Buffer.allocUnsafeSlow(SLAB_PAGES * PAGE_BYTES));
  }

  #offset(slot: number): number {
    return (slot % SLAB_PAGES) * PAGE_BYTES;
  }
}

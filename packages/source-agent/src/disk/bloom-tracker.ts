/**
 * Changed blocks in a Bloom filter: no false negatives; a false positive costs one needless read
 * and, as the block's hash is known, no bytes on the link.
 *
 * Sized for a sixteenth of the disk's blocks at `FALSE_POSITIVE_RATE`, 0.6 bits a block. A guest
 * that changes more of the disk in one round fills the filter, and more is copied than need be.
 * The package hashes 64-bit digests of buffers in software, hundreds of microseconds a call; block
 * numbers need two integer mixes instead.
 */
import { BloomFilter } from "bloom-filters";
import type { DirtyTracker } from "./dirty-tracker.ts";

export const FALSE_POSITIVE_RATE = 0.01;
const BLOCKS_PER_ITEM = 16;
const ITEMS_MIN = 1024;

/** What the package takes for an element; our own hashing reads it as the number that it is. */
type Element = Parameters<BloomFilter["add"]>[0];

export class BloomTracker implements DirtyTracker {
  readonly #items: number;
  #filter: BloomFilter;
  #count = 0;

  constructor(blocks: number) {
    this.#items = Math.max(ITEMS_MIN, Math.ceil(blocks / BLOCKS_PER_ITEM));
    this.#filter = newFilter(this.#items);
  }

  get count(): number {
    return this.#count;
  }

  mark(block: number): void {
    if (this.has(block)) return;
    this.#filter.add(block as unknown as Element);
    this.#count++;
  }

  has(block: number): boolean {
    return this.#filter.has(block as unknown as Element);
  }

  clear(): void {
    if (this.#count === 0) return;
    this.#filter = newFilter(this.#items);
    this.#count = 0;
  }
}

function newFilter(items: number): BloomFilter {
  const filter = BloomFilter.create(items, FALSE_POSITIVE_RATE);
  filter._hashing.getIndexes = blockIndexes;
  return filter;
}

/** Double hashing with an odd step: distinct places, and no BigInt on the way. */
function blockIndexes(element: unknown, size: number, hashes: number): number[] {
  const block = element as number;
  const first = mix(block);
  const step = (mix(first ^ 0x9e3779b9) | 1) >>> 0;
  const indexes = new Array<number>(hashes);
  for (let i = 0; i < hashes; i++) indexes[i] = (first + i * step) % size;
  return indexes;
}

/** The finaliser of MurmurHash3: every bit of the input reaches every bit of the output. */
function mix(value: number): number {
  let h = value >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

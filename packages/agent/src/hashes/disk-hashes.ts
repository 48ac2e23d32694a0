/**
 * One 64-bit hash a unit of a disk: of what the dest's image holds, as far as each side knows. A
 * write to a part of a unit leaves its hash open until the unit is read again; the digest over all
 * hashes, once none is open, is the proof that both images are equal.
 */
import { assert, Bitmap } from "@vmferry/core";
import { HashTable } from "./hash-table.ts";
import { SeededHash } from "./seeded-hash.ts";

export interface DiskHashesOptions {
  readonly sizeBytes: number;
  readonly unitBytes: number;
  /** 16 hex digits, the same on both sides and not known to the guest. */
  readonly seedHex: string;
}

export class DiskHashes {
  readonly sizeBytes: number;
  readonly unitBytes: number;
  readonly units: number;
  readonly #seeded: SeededHash;
  readonly #table: HashTable;
  readonly #open: Bitmap;
  readonly #zeroHash: bigint;
  readonly #zeroHashOfLast: bigint;
  #openCount = 0;
  #scan = 0;

  /** In the beginning every unit is zero, as in a new image. */
  constructor({ sizeBytes, unitBytes, seedHex }: DiskHashesOptions) {
    this.sizeBytes = sizeBytes;
    this.unitBytes = unitBytes;
    this.units = Math.ceil(sizeBytes / unitBytes);
    this.#seeded = new SeededHash(seedHex);
    this.#table = new HashTable(this.units);
    this.#open = new Bitmap(this.units);
    const zeros = Buffer.alloc(unitBytes);
    this.#zeroHash = this.#seeded.hash(zeros);
    this.#zeroHashOfLast = this.#seeded.hash(zeros.subarray(0, this.lengthOf(this.units - 1)));
    this.setZero(0, this.units);
  }

  /** Units whose hash has to be made anew. */
  get openCount(): number {
    return this.#openCount;
  }

  /** The last unit may be shorter. */
  lengthOf(unit: number): number {
    return Math.min(this.unitBytes, this.sizeBytes - unit * this.unitBytes);
  }

  hash(content: Buffer): bigint {
    return this.#seeded.hash(content);
  }

  /** True when the unit is known to hold just this. */
  holds(unit: number, hash: bigint): boolean {
    return !this.#open.has(unit) && this.#table.get(unit) === hash;
  }

  /** True when the unit is known to be zero. The last unit, where it is shorter, never is. */
  isZero(unit: number): boolean {
    return this.holds(unit, this.#zeroHash);
  }

  set(unit: number, hash: bigint): void {
    this.#table.set(unit, hash);
    if (!this.#open.has(unit)) return;
    this.#open.clear(unit);
    this.#openCount--;
  }

  setZero(first: number, count: number): void {
    this.#table.fill(this.#zeroHash, first, count);
    if (first + count === this.units && count > 0) {
      this.#table.set(this.units - 1, this.#zeroHashOfLast);
    }
    this.#close(first, count);
  }

  /** Nothing is said of these units: in the digest they have the hash 0. */
  leaveOut(first: number, count: number): void {
    this.#table.fill(0n, first, count);
    this.#close(first, count);
  }

  isLeftOut(unit: number): boolean {
    return !this.#open.has(unit) && this.#table.get(unit) === 0n;
  }

  #close(first: number, count: number): void {
    if (this.#openCount === 0) return;
    for (let unit = first; unit < first + count; unit++) {
      if (!this.#open.has(unit)) continue;
      this.#open.clear(unit);
      this.#openCount--;
    }
  }

  /** A part of the unit was written: only reading it again tells its hash. */
  open(unit: number): void {
    if (!this.#open.testAndSet(unit)) this.#openCount++;
  }

  /** Nothing is known of the image. */
  openAll(): void {
    for (let unit = 0; unit < this.units; unit++) this.open(unit);
  }

  isOpen(unit: number): boolean {
    return this.#open.has(unit);
  }

  /**
   * The next open unit for which `ready` holds, going round; null when a look at all units, or at
   * `lookMax` of them, finds none. The next call goes on from there.
   */
  nextOpen(ready: (unit: number) => boolean, lookMax = this.units): number | null {
    if (this.#openCount === 0) return null;
    for (let i = 0; i < Math.min(lookMax, this.units); i++) {
      const unit = this.#scan;
      this.#scan = (this.#scan + 1) % this.units;
      if (this.#open.has(unit) && ready(unit)) return unit;
    }
    return null;
  }

  refresh(): Promise<void> {
    return this.#table.refresh();
  }

  /** 64 hex digits over size, unit size and every unit. */
  digest(): string {
    assert(this.#openCount === 0, "a digest covers units that were all read");
    return this.#table.digest(`${this.sizeBytes}:${this.unitBytes};`);
  }
}

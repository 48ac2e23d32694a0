/** Of each byte. */
const BITS_SET = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest > 0; rest >>= 1) bits += rest & 1;
  return bits;
});

/** One bit an index, bit 0 of byte 0 first; the bits behind `length` are zero. */
export class Bitmap {
  readonly length: number;
  readonly #bytes: Uint8Array;

  constructor(length: number) {
    this.length = length;
    this.#bytes = new Uint8Array(Math.ceil(length / 8));
  }

  has(index: number): boolean {
    return (this.#bytes[index >>> 3]! & (1 << (index & 7))) !== 0;
  }

  /** Sets the bit and tells whether it was set before. */
  testAndSet(index: number): boolean {
    const byte = this.#bytes[index >>> 3]!;
    const mask = 1 << (index & 7);
    this.#bytes[index >>> 3] = byte | mask;
    return (byte & mask) !== 0;
  }

  /** Sets what is set in one of the same length. */
  setAllOf(other: Bitmap): void {
    for (let at = 0; at < this.#bytes.length; at++) this.#bytes[at]! |= other.#bytes[at]!;
  }

  /** How many are set. */
  count(): number {
    let set = 0;
    for (const byte of this.#bytes) set += BITS_SET[byte]!;
    return set;
  }

  clear(index: number): void {
    this.#bytes[index >>> 3]! &= ~(1 << (index & 7));
  }

  /** The first set bit at or behind `index`; null when there is none. */
  nextSet(index: number): number | null {
    const bytes = this.#bytes;
    let at = index;
    while (at < this.length) {
      if ((at & 7) === 0 && bytes[at >>> 3] === 0) {
        at += 8;
        continue;
      }
      if (this.has(at)) return at;
      at++;
    }
    return null;
  }

  clearAll(): void {
    this.#bytes.fill(0);
  }
}

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

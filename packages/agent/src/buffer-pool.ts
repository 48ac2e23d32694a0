/**
 * Buffers of any size that are used again instead of becoming garbage. Each is a part of one that has
 * a power of two of bytes, so that few sizes serve all.
 */
const CLASS_BYTES_MIN = 4096;

export class BufferPool {
  readonly #freeBytesMax: number;
  readonly #free = new Map<number, ArrayBuffer[]>();
  #freeBytes = 0;

  /** @param freeBytesMax what is given back beyond that is garbage */
  constructor(freeBytesMax: number) {
    this.#freeBytesMax = freeBytesMax;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** With anything in it. */
  take(bytes: number): Buffer {
    const size = classOf(bytes);
    const free = this.#free.get(size)?.pop();
    if (free === undefined) return Buffer.allocUnsafeSlow(size).subarray(0, bytes);
    this.#freeBytes -= size;
    return Buffer.from(free, 0, bytes);
  }

  /** One that was taken here, and that nobody looks at any more. */
  give(buffer: Buffer): void {
    const { buffer: whole } = buffer as Buffer<ArrayBuffer>;
    const size = whole.byteLength;
    if (this.#freeBytes + size > this.#freeBytesMax) return;
    this.#freeBytes += size;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [whole]);
    else free.push(whole);
  }
}

function classOf(bytes: number): number {
  return Math.max(CLASS_BYTES_MIN, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))));
}

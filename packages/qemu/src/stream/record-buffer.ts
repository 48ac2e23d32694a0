import { assert } from "@vmferry/core";

import { NAME_ENCODING } from "./stream-format.ts";

/**
 * One control record while it arrives: chunks are appended, fields are read in order, and the whole
 * goes on as it was. How long it may get is for the grammar to say before it asks for bytes.
 */
export class RecordBuffer {
  #bytes = Buffer.alloc(4096);
  #filled = 0;
  #read = 0;

  /** What was appended since `clear`: a view, valid until the next `append` or `clear`. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#filled);
  }

  get unreadBytes(): number {
    return this.#filled - this.#read;
  }

  /** Everything that is not read yet: a view, valid until the next `append` or `clear`. */
  get unread(): Buffer {
    return this.#bytes.subarray(this.#read, this.#filled);
  }

  append(chunk: Buffer, start: number, end: number): void {
    const filled = this.#filled + end - start;
    if (filled > this.#bytes.length) {
      const grown = Buffer.alloc(2 ** Math.ceil(Math.log2(filled)));
      this.#bytes.copy(grown, 0, 0, this.#filled);
      this.#bytes = grown;
    }
    chunk.copy(this.#bytes, this.#filled, start, end);
    this.#filled = filled;
  }

  clear(): void {
    this.#filled = 0;
    this.#read = 0;
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  u16(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4));
  }

  /** A u64 as a number: exact up to 2^53, and above that still far over any limit. */
  u64(): number {
    const high = this.u32();
    return high * 0x100000000 + this.u32();
  }

  text(length: number): string {
    const at = this.#take(length);
    return this.#bytes.toString(NAME_ENCODING, at, at + length);
  }

  /** A view, valid until the next `append` or `clear`. */
  view(length: number): Buffer {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  #take(length: number): number {
    const at = this.#read;
    assert(at + length <= this.#filled, "a field is read after its bytes were asked for");
    this.#read = at + length;
    return at;
  }
}

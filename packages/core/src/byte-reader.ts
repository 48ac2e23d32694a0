import { AgentError } from "./agent-error.ts";
import { assert } from "./assert.ts";

export class ByteError extends AgentError<
  | {
      readonly code: "bytes-truncated";
      readonly field: string;
      readonly offset: number;
      readonly need: number;
    }
  | { readonly code: "bytes-trailing"; readonly offset: number; readonly extra: number }
  | { readonly code: "bytes-too-large"; readonly field: string; readonly value: bigint }
> {}

/** Reads big-endian fields in order; each read names its field, `end` refuses what is left. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#bytes.byteLength - this.#offset;
  }

  u8(field: string): number {
    return this.#view.getUint8(this.#take(field, 1));
  }

  u16(field: string): number {
    return this.#view.getUint16(this.#take(field, 2));
  }

  u32(field: string): number {
    return this.#view.getUint32(this.#take(field, 4));
  }

  u64(field: string): bigint {
    return this.#view.getBigUint64(this.#take(field, 8));
  }

  /** A u64 that has to fit a safe integer. */
  u64AsNumber(field: string): number {
    const value = this.u64(field);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ByteError(`${field} is ${value}, beyond 2^53`, {
        code: "bytes-too-large",
        field,
        value,
      });
    }
    return Number(value);
  }

  /** A view, not a copy. */
  bytes(field: string, length: number): Uint8Array {
    assert(Number.isInteger(length) && length >= 0, `${field} is a whole number of bytes`);
    const start = this.#take(field, length);
    return this.#bytes.subarray(start, start + length);
  }

  /** Refuses trailing bytes. */
  end(): void {
    if (this.remaining !== 0) {
      throw new ByteError(`${this.remaining} trailing bytes after offset ${this.#offset}`, {
        code: "bytes-trailing",
        offset: this.#offset,
        extra: this.remaining,
      });
    }
  }

  #take(field: string, need: number): number {
    const offset = this.#offset;
    if (need > this.remaining) {
      throw new ByteError(`${field} needs ${need} bytes at ${offset}, ${this.remaining} left`, {
        code: "bytes-truncated",
        field,
        offset,
        need,
      });
    }
    this.#offset += need;
    return offset;
  }
}

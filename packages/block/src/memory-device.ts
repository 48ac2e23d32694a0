// A disk in memory for tests. It can be told to hold its requests back and to fail them, and
// keeps a log of what it was asked for.

import { Deferred } from "@vmferry/core";
import type { BlockDevice, Extent } from "./block-device.ts";

const BLOCK_BYTES = 4096;

export interface DeviceCall {
  readonly operation: "read" | "write" | "write-zeroes" | "trim" | "flush" | "extents";
  readonly offset: number;
  readonly length: number;
  readonly mayPunch?: boolean;
}

export class MemoryDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly content: Buffer;
  readonly calls: DeviceCall[] = [];
  /** What the next requests reject with. */
  failure: Error | null = null;
  /** Requests that have begun and not settled. */
  underWay = 0;
  /** A 1 for each block that takes space. */
  readonly #allocated: Uint8Array;
  #gate: Deferred | null = null;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.content = Buffer.alloc(sizeBytes);
    this.#allocated = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES));
  }

  /** Requests from now on wait for `release`, and take effect only then. */
  hold(): void {
    this.#gate ??= new Deferred();
  }

  release(): void {
    this.#gate?.resolve();
    this.#gate = null;
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#perform({ operation: "read", offset, length }, () =>
      Buffer.from(this.content.subarray(offset, offset + length)),
    );
  }

  readInto(offset: number, buffer: Buffer): Promise<void> {
    return this.#perform({ operation: "read", offset, length: buffer.length }, () => {
      this.content.copy(buffer, 0, offset, offset + buffer.length);
    });
  }

  write(offset: number, data: Buffer): Promise<void> {
    return this.#perform({ operation: "write", offset, length: data.length }, () => {
      data.copy(this.content, offset);
      this.#allocate(offset, data.length);
    });
  }

  writeZeroes(
    offset: number,
    length: number,
    { mayPunch }: { readonly mayPunch: boolean },
  ): Promise<void> {
    return this.#perform({ operation: "write-zeroes", offset, length, mayPunch }, () => {
      this.content.fill(0, offset, offset + length);
      if (mayPunch) this.#punch(offset, length);
      else this.#allocate(offset, length);
    });
  }

  trim(offset: number, length: number): Promise<void> {
    return this.#perform({ operation: "trim", offset, length }, () => {
      this.content.fill(0, offset, offset + length);
      this.#punch(offset, length);
    });
  }

  flush(): Promise<void> {
    return this.#perform({ operation: "flush", offset: 0, length: 0 }, () => undefined);
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    // One extent per block: whoever asks has to put them together.
    return this.#perform({ operation: "extents", offset, length }, () => {
      const extents: Extent[] = [];
      for (let at = offset; at < offset + length; at += extents.at(-1)!.length) {
        const block = Math.floor(at / BLOCK_BYTES);
        const end = Math.min((block + 1) * BLOCK_BYTES, offset + length);
        const kind = this.#allocated[block] === 1 ? "data" : "zero";
        extents.push({ offset: at, length: end - at, kind });
      }
      return extents;
    });
  }

  async #perform<T>(call: DeviceCall, effect: () => T): Promise<T> {
    this.calls.push(call);
    const failure = this.failure;
    this.underWay += 1;
    try {
      await this.#gate?.promise;
      if (failure !== null) throw failure;
      return effect();
    } finally {
      this.underWay -= 1;
    }
  }

  #allocate(offset: number, length: number): void {
    this.#allocated.fill(
      1,
      Math.floor(offset / BLOCK_BYTES),
      Math.ceil((offset + length) / BLOCK_BYTES),
    );
  }

  #punch(offset: number, length: number): void {
    const end = offset + length === this.sizeBytes ? Infinity : offset + length;
    const first = Math.ceil(offset / BLOCK_BYTES);
    const last = Math.min(Math.floor(end / BLOCK_BYTES), this.#allocated.length);
    if (last > first) this.#allocated.fill(0, first, last);
  }
}

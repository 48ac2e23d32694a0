/**
 * A disk in memory whose requests are carried out in any order, each in two parts with others in
 * between, as the contract of a BlockDevice allows: whoever relies on more finds half of a write.
 */
import { BlockError, type BlockDevice, type Extent } from "@vmferry/block";
import type { Disorder } from "./disorder.ts";

/** What is allocated as one. */
const CLUSTER_BYTES = 4096;

export class DisorderlyDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly content: Buffer;
  /** Share of the changes that fail, with the range half changed or not at all. */
  failureShare = 0;
  readonly #disorder: Disorder;
  readonly #allocated: Uint8Array;

  /** Holds `content`, whose clusters of zeros are holes where `sparse`. */
  constructor(disorder: Disorder, content: Buffer, { sparse }: { readonly sparse: boolean }) {
    this.#disorder = disorder;
    this.sizeBytes = content.length;
    this.content = Buffer.from(content);
    this.#allocated = new Uint8Array(Math.ceil(content.length / CLUSTER_BYTES));
    for (let cluster = 0; cluster < this.#allocated.length; cluster++) {
      const start = cluster * CLUSTER_BYTES;
      const isZero = this.content
        .subarray(start, start + CLUSTER_BYTES)
        .every((byte) => byte === 0);
      this.#allocated[cluster] = sparse && isZero ? 0 : 1;
    }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: number, buffer: Buffer): Promise<void> {
    const half = buffer.length >>> 1;
    await this.#disorder.turn();
    this.content.copy(buffer, 0, offset, offset + half);
    await this.#disorder.turn();
    this.content.copy(buffer, half, offset + half, offset + buffer.length);
  }

  write(offset: number, data: Buffer): Promise<void> {
    return this.#change(offset, data.length, (from, to) => {
      data.copy(this.content, from, from - offset, to - offset);
      this.#allocate(from, to);
    });
  }

  writeZeroes(offset: number, length: number, options: { mayPunch: boolean }): Promise<void> {
    return this.#change(offset, length, (from, to) => {
      this.content.fill(0, from, to);
      if (options.mayPunch) this.#punch(from, to);
      else this.#allocate(from, to);
    });
  }

  /** The content does not matter any more, so anything may be there. */
  trim(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, (from, to) => {
      this.content.fill(0xdd, from, to);
      this.#allocate(from, to);
    });
  }

  async flush(): Promise<void> {
    await this.#disorder.turn();
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    await this.#disorder.turn();
    const extents: { offset: number; length: number; kind: "data" | "zero" }[] = [];
    for (let at = offset; at < offset + length;) {
      const cluster = Math.floor(at / CLUSTER_BYTES);
      const end = Math.min(offset + length, (cluster + 1) * CLUSTER_BYTES);
      const kind = this.#allocated[cluster] === 1 ? "data" : "zero";
      const last = extents.at(-1);
      if (last?.kind === kind) last.length += end - at;
      else extents.push({ offset: at, length: end - at, kind });
      at = end;
    }
    return extents;
  }

  async #change(
    offset: number,
    length: number,
    apply: (from: number, to: number) => void,
  ): Promise<void> {
    const half = offset + (length >>> 1);
    const fails = this.#disorder.chance(this.failureShare);
    await this.#disorder.turn();
    if (half > offset && !(fails && this.#disorder.chance(0.5))) apply(offset, half);
    await this.#disorder.turn();
    if (fails) {
      const detail = { code: "block-io", errno: "EIO", operation: "write", offset } as const;
      throw new BlockError("the image did not take it", detail);
    }
    apply(half, offset + length);
  }

  #allocate(from: number, to: number): void {
    const last = Math.floor((to - 1) / CLUSTER_BYTES);
    for (let i = Math.floor(from / CLUSTER_BYTES); i <= last; i++) this.#allocated[i] = 1;
  }

  #punch(from: number, to: number): void {
    const end = to === this.sizeBytes ? this.#allocated.length : Math.floor(to / CLUSTER_BYTES);
    for (let i = Math.ceil(from / CLUSTER_BYTES); i < end; i++) this.#allocated[i] = 0;
  }
}

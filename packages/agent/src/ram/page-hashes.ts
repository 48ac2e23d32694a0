/**
 * One 64-bit hash a page: at the source of what was last sent, at the dest of what was last fed to
 * QEMU. The digest over all of them is the end-to-end proof that both mean the same memory.
 *
 * 8 bytes a page are 2 MiB a GiB of guest. The digest is kept in chunks, so that at the stun only
 * what changed since the last `refresh` is hashed again.
 */
import { createHash } from "node:crypto";
import { xxh64 } from "@node-rs/xxhash";
import { assert } from "@vmferry/core";
import { limits } from "@vmferry/protocol";

const { PAGE_BYTES } = limits;
const CHUNK_PAGES = 8192;
const DIGEST_BYTES = 32;
/** Chunks hashed in one go before the event loop gets its turn: 4 MiB of hashes, some 4 ms. */
const CHUNKS_PER_TURN = 64;

export interface HashedBlock {
  readonly name: string;
  readonly lengthBytes: number;
}

export class PageHashes {
  readonly blocks: readonly HashedBlock[];
  readonly pages: number;
  readonly zeroHash: bigint;
  readonly #seed: bigint;
  readonly #firstOfBlock: number[] = [];
  readonly #hashes: BigUint64Array;
  readonly #chunkChanged: Uint8Array;
  readonly #chunkDigests: Buffer;

  /** @param seedHex 16 hex digits, the same on both sides and not known to the guest */
  constructor(blocks: readonly HashedBlock[], seedHex: string) {
    this.blocks = blocks;
    this.#seed = BigInt(`0x${seedHex}`);
    let pages = 0;
    for (const block of blocks) {
      this.#firstOfBlock.push(pages);
      pages += block.lengthBytes / PAGE_BYTES;
    }
    this.pages = pages;
    const chunks = Math.ceil(pages / CHUNK_PAGES);
    this.#hashes = new BigUint64Array(pages);
    this.#chunkChanged = new Uint8Array(chunks).fill(1);
    this.#chunkDigests = Buffer.alloc(chunks * DIGEST_BYTES);
    this.zeroHash = this.hash(Buffer.alloc(PAGE_BYTES));
  }

  /** Position of a page among all pages of all blocks. */
  indexOf(block: number, page: number): number {
    return this.#firstOfBlock[block]! + page;
  }

  blockPages(block: number): number {
    return this.blocks[block]!.lengthBytes / PAGE_BYTES;
  }

  /** The block and page behind an index. */
  locate(index: number): { readonly block: number; readonly page: number } {
    let block = this.#firstOfBlock.length - 1;
    while (this.#firstOfBlock[block]! > index) block--;
    return { block, page: index - this.#firstOfBlock[block]! };
  }

  /** Never 0, which stands for "nothing sent yet". */
  hash(page: Buffer): bigint {
    const hash = xxh64(page, this.#seed);
    return hash === 0n ? 1n : hash;
  }

  get(index: number): bigint {
    return this.#hashes[index]!;
  }

  set(index: number, hash: bigint): void {
    this.#hashes[index] = hash;
    this.#chunkChanged[(index / CHUNK_PAGES) | 0] = 1;
  }

  /** Pages of a run that are now zero. */
  setZero(first: number, count: number): void {
    this.#hashes.fill(this.zeroHash, first, first + count);
    const last = ((first + count - 1) / CHUNK_PAGES) | 0;
    this.#chunkChanged.fill(1, (first / CHUNK_PAGES) | 0, last + 1);
  }

  /** Does most of the work of `digest` ahead of the stun, in turns that do not stall the loop. */
  async refresh(): Promise<void> {
    let done = 0;
    for (let chunk = 0; chunk < this.#chunkChanged.length; chunk++) {
      if (this.#chunkChanged[chunk] === 0) continue;
      this.#hashChunk(chunk);
      if (++done % CHUNKS_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** 64 hex digits over geometry and every page. */
  digest(): string {
    for (let chunk = 0; chunk < this.#chunkChanged.length; chunk++) {
      if (this.#chunkChanged[chunk] === 1) this.#hashChunk(chunk);
    }
    const hash = createHash("sha256");
    for (const block of this.blocks) {
      hash.update(`${block.name.length}:${block.name}:${block.lengthBytes};`);
    }
    return hash.update(this.#chunkDigests).digest("hex");
  }

  #hashChunk(chunk: number): void {
    const first = chunk * CHUNK_PAGES;
    const entries = this.#hashes.subarray(first, first + CHUNK_PAGES);
    assert(entries.length > 0, "a chunk has entries");
    const bytes = Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength);
    createHash("sha256")
      .update(bytes)
      .digest()
      .copy(this.#chunkDigests, chunk * DIGEST_BYTES);
    this.#chunkChanged[chunk] = 0;
  }
}

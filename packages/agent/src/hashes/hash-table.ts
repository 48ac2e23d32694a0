/**
 * 64-bit hashes, one a page or block, and a digest over all of them. The digest is kept in chunks,
 * so that at the stun only what changed since the last `refresh` is hashed again.
 */
import { createHash } from "node:crypto";
import { assert } from "@vmferry/core";

const CHUNK_ENTRIES = 8192;
const DIGEST_BYTES = 32;
/** Chunks hashed in one go before the event loop gets its turn: 4 MiB of hashes, some 4 ms. */
const CHUNKS_PER_TURN = 64;

export class HashTable {
  readonly #hashes: BigUint64Array;
  readonly #chunkChanged: Uint8Array;
  readonly #chunkDigests: Buffer;

  constructor(entries: number) {
    const chunks = Math.ceil(entries / CHUNK_ENTRIES);
    this.#hashes = new BigUint64Array(entries);
    this.#chunkChanged = new Uint8Array(chunks).fill(1);
    this.#chunkDigests = Buffer.alloc(chunks * DIGEST_BYTES);
  }

  get(index: number): bigint {
    return this.#hashes[index]!;
  }

  holds(index: number, hash: bigint): boolean {
    return this.#hashes[index] === hash;
  }

  set(index: number, hash: bigint): void {
    this.#hashes[index] = hash;
    this.#chunkChanged[(index / CHUNK_ENTRIES) | 0] = 1;
  }

  fill(hash: bigint, first: number, count: number): void {
    if (count === 0) return;
    this.#hashes.fill(hash, first, first + count);
    const last = ((first + count - 1) / CHUNK_ENTRIES) | 0;
    this.#chunkChanged.fill(1, (first / CHUNK_ENTRIES) | 0, last + 1);
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

  /** 64 hex digits over `geometry` and every entry. */
  digest(geometry: string): string {
    for (let chunk = 0; chunk < this.#chunkChanged.length; chunk++) {
      if (this.#chunkChanged[chunk] === 1) this.#hashChunk(chunk);
    }
    return createHash("sha256").update(geometry).update(this.#chunkDigests).digest("hex");
  }

  #hashChunk(chunk: number): void {
    const first = chunk * CHUNK_ENTRIES;
    const entries = this.#hashes.subarray(first, first + CHUNK_ENTRIES);
    assert(entries.length > 0, "a chunk has entries");
    const bytes = Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength);
    createHash("sha256")
      .update(bytes)
      .digest()
      .copy(this.#chunkDigests, chunk * DIGEST_BYTES);
    this.#chunkChanged[chunk] = 0;
  }
}

import { xxh64 } from "@node-rs/xxhash";

/** 64-bit hashes with a seed that both agents know and the guest does not. */
export class SeededHash {
  readonly #seed: bigint;

  /** @param seedHex 16 hex digits */
  constructor(seedHex: string) {
    this.#seed = BigInt(`0x${seedHex}`);
  }

  /** Never 0, which stands for "not known". */
  hash(bytes: Buffer): bigint {
    const hash = xxh64(bytes, this.#seed);
    return hash === 0n ? 1n : hash;
  }
}

import { xxh64 } from "@node-rs/xxhash";
import { expect, test } from "vitest";
import { SeededHash } from "./seeded-hash.ts";

const NO_SEED = "0".repeat(16);

test.each([
  // Of XXH64's own test vectors.
  ["", 0xef46db3751d8e999n],
  ["a", 0xd24ec4f1a98c6e5bn],
  ["abc", 0x44bc2cf5ad770999n],
])("the hash of %j without a seed is XXH64's", (text, hash) => {
  expect(new SeededHash(NO_SEED).hash(Buffer.from(text))).toBe(hash);
});

test("every bit of the seed counts", () => {
  const hashes = Array.from({ length: 64 }, (_, bit) => {
    const seedHex = (1n << BigInt(bit)).toString(16).padStart(16, "0");
    return new SeededHash(seedHex).hash(Buffer.from("a block"));
  });
  hashes.push(new SeededHash(NO_SEED).hash(Buffer.from("a block")));
  expect(new Set(hashes).size).toBe(65);
});

test("a hash that would be 0 is 1", () => {
  // XXH64 of nothing is a mix of seed + PRIME64_5 that leaves 0 as it is.
  const seed = 2n ** 64n - 2_870_177_450_012_600_261n;
  expect(xxh64(Buffer.alloc(0), seed)).toBe(0n);
  expect(new SeededHash(seed.toString(16).padStart(16, "0")).hash(Buffer.alloc(0))).toBe(1n);
});

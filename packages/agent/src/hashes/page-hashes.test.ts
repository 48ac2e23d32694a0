import { createHash } from "node:crypto";
import { xxh64 } from "@node-rs/xxhash";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PageHashes } from "./page-hashes.ts";

const PAGE_BYTES = 4096;
const CHUNK_PAGES = 8192;
const HASH_SEED = "00112233445566ff";
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

function blocks(...pages: readonly number[]): { name: string; lengthBytes: number }[] {
  return pages.map((count, i) => ({ name: `block${i}`, lengthBytes: count * PAGE_BYTES }));
}

function contentPage(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, `content ${content} `);
}

/** The digest as docs/protocol.md describes it, in the plainest way. */
function naiveDigest(
  geometry: readonly { name: string; lengthBytes: number }[],
  hashes: readonly bigint[],
): string {
  const digest = createHash("sha256");
  for (const { name, lengthBytes } of geometry)
    digest.update(`${name.length}:${name}:${lengthBytes};`);
  for (let first = 0; first < hashes.length; first += CHUNK_PAGES) {
    const chunk = hashes.slice(first, first + CHUNK_PAGES);
    const bytes = Buffer.alloc(chunk.length * 8);
    for (const [i, hash] of chunk.entries()) bytes.writeBigUInt64LE(hash, i * 8);
    digest.update(createHash("sha256").update(bytes).digest());
  }
  return digest.digest("hex");
}

describe("the hash of a page", () => {
  test("is XXH64 of its bytes with the seed", () => {
    const hashes = new PageHashes(blocks(1), HASH_SEED);
    expect(hashes.hash(contentPage(1))).toBe(xxh64(contentPage(1), 0x00112233445566ffn));
  });

  test("of a zero page is known, whichever way the page came", () => {
    const hashes = new PageHashes(blocks(4), HASH_SEED);
    expect(hashes.zeroHash).toBe(hashes.hash(Buffer.alloc(PAGE_BYTES)));
    expect(hashes.zeroHash).not.toBe(0n);
    hashes.setZero(1, 2);
    expect([0, 1, 2, 3].map((i) => hashes.get(i))).toEqual([
      0n,
      hashes.zeroHash,
      hashes.zeroHash,
      0n,
    ]);
  });

  test("differs from seed to seed", () => {
    const other = new PageHashes(blocks(1), "00112233445566fe");
    expect(other.hash(contentPage(1))).not.toBe(
      new PageHashes(blocks(1), HASH_SEED).hash(contentPage(1)),
    );
  });
});

describe("the place of a page", () => {
  test("is found from block and page, and back", () => {
    const hashes = new PageHashes(blocks(3, 1, 5), HASH_SEED);
    expect(hashes.pages).toBe(9);
    const places: { block: number; page: number }[] = [];
    for (let block = 0; block < 3; block++) {
      for (let page = 0; page < hashes.blockPages(block); page++) {
        expect(hashes.locate(hashes.indexOf(block, page))).toEqual({ block, page });
        places.push({ block, page });
      }
    }
    expect(places.map(({ block, page }) => hashes.indexOf(block, page))).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
  });
});

describe("the digest", () => {
  const PAGES = 3 * CHUNK_PAGES + 100;

  test("is as the protocol says", () => {
    const geometry = blocks(2 * CHUNK_PAGES, 7);
    const hashes = new PageHashes(geometry, HASH_SEED);
    const expected = Array.from({ length: hashes.pages }, () => 0n);
    for (const index of [0, 5, CHUNK_PAGES - 1, CHUNK_PAGES, 2 * CHUNK_PAGES + 6]) {
      expected[index] = hashes.hash(contentPage(index));
      hashes.set(index, expected[index]);
    }
    expect(hashes.digest()).toBe(naiveDigest(geometry, expected));
  });

  test("depends on every page, those at the borders of chunks and blocks too", () => {
    const hashes = new PageHashes(blocks(CHUNK_PAGES + 1, PAGES - CHUNK_PAGES - 1), HASH_SEED);
    const seen = new Set([hashes.digest()]);
    const indexes = [
      0,
      1,
      CHUNK_PAGES - 1,
      CHUNK_PAGES,
      CHUNK_PAGES + 1,
      2 * CHUNK_PAGES,
      PAGES - 1,
    ];
    for (const index of indexes) {
      hashes.set(index, 99n);
      seen.add(hashes.digest());
    }
    expect(seen.size).toBe(1 + indexes.length);
    for (const index of indexes) hashes.set(index, 0n);
    expect(hashes.digest()).toBe([...seen][0]);
  });

  test("depends on which of two pages has which content", () => {
    const [one, other] = [
      new PageHashes(blocks(2), HASH_SEED),
      new PageHashes(blocks(2), HASH_SEED),
    ];
    one.set(0, 1n);
    one.set(1, 2n);
    other.set(0, 2n);
    other.set(1, 1n);
    expect(one.digest()).not.toBe(other.digest());
  });

  test("depends on names, lengths and order of the blocks, although the pages are the same", () => {
    const geometries = [
      blocks(4, 4),
      blocks(5, 3),
      blocks(8),
      [...blocks(4, 4)].reverse(),
      [
        { name: "block", lengthBytes: 4 * PAGE_BYTES },
        { name: "0block1", lengthBytes: 4 * PAGE_BYTES },
      ],
    ];
    const digests = geometries.map((geometry) => new PageHashes(geometry, HASH_SEED).digest());
    expect(new Set(digests).size).toBe(geometries.length);
  });

  test("depends on the seed as soon as there is content", () => {
    const digests = [HASH_SEED, "0".repeat(16)].map((each) => {
      const hashes = new PageHashes(blocks(1), each);
      hashes.set(0, hashes.hash(contentPage(1)));
      return hashes.digest();
    });
    expect(digests[0]).not.toBe(digests[1]);
  });

  test("is another one for a page that is zero and one that was never sent", () => {
    const hashes = new PageHashes(blocks(2), HASH_SEED);
    const before = hashes.digest();
    hashes.setZero(1, 1);
    expect(hashes.digest()).not.toBe(before);
  });

  test("is of 64 hex digits, also without any page", () => {
    expect(new PageHashes([], HASH_SEED).digest()).toMatch(/^[0-9a-f]{64}$/);
  });

  test(`is the same however pages were set and whenever it was refreshed (SEED=${seed})`, async () => {
    const step = fc.oneof(
      fc.record({ index: fc.nat(PAGES - 1), content: fc.nat(3) }),
      fc.record({ first: fc.nat(PAGES - 1), count: fc.integer({ min: 1, max: PAGES }) }),
      fc.constantFrom("refresh" as const, "digest" as const),
    );
    const property = fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const geometry = blocks(CHUNK_PAGES - 3, PAGES - CHUNK_PAGES + 3);
      const hashes = new PageHashes(geometry, HASH_SEED);
      const expected = Array.from({ length: PAGES }, () => 0n);
      for (const each of steps) {
        if (each === "refresh") await hashes.refresh();
        else if (each === "digest") hashes.digest();
        else if ("index" in each) {
          expected[each.index] = hashes.hash(contentPage(each.content));
          hashes.set(each.index, expected[each.index]!);
        } else {
          const count = Math.min(each.count, PAGES - each.first);
          expected.fill(hashes.zeroHash, each.first, each.first + count);
          hashes.setZero(each.first, count);
        }
      }
      expect(hashes.digest()).toBe(naiveDigest(geometry, expected));
    });
    await fc.assert(property, { seed, numRuns: 15 });
  });

  test("covers what changed while it was being refreshed", async () => {
    const pages = 70 * CHUNK_PAGES;
    const hashes = new PageHashes(blocks(pages), HASH_SEED);
    const refreshing = hashes.refresh();
    // The first 64 chunks are done, the others come when the event loop had its turn.
    hashes.set(0, 5n);
    hashes.set(pages - 1, 6n);
    await refreshing;
    const same = new PageHashes(blocks(pages), HASH_SEED);
    same.set(0, 5n);
    same.set(pages - 1, 6n);
    expect(hashes.digest()).toBe(same.digest());
  });
});

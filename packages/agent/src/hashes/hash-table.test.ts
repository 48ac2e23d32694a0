import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HashTable } from "./hash-table.ts";

const CHUNK_ENTRIES = 8192;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

/** In the plainest way: every entry once more. */
function naiveDigest(geometry: string, entries: readonly bigint[]): string {
  const digest = createHash("sha256").update(geometry);
  for (let first = 0; first < entries.length; first += CHUNK_ENTRIES) {
    const chunk = entries.slice(first, first + CHUNK_ENTRIES);
    const bytes = Buffer.alloc(chunk.length * 8);
    for (const [i, entry] of chunk.entries()) bytes.writeBigUInt64LE(entry, i * 8);
    digest.update(createHash("sha256").update(bytes).digest());
  }
  return digest.digest("hex");
}

describe("entries", () => {
  test("are 0 until they are set, and hold all 64 bits", () => {
    const table = new HashTable(3);
    table.set(1, 2n ** 64n - 1n);
    table.set(2, 2n ** 63n);
    expect([0, 1, 2].map((index) => table.get(index))).toEqual([0n, 2n ** 64n - 1n, 2n ** 63n]);
  });

  test("are filled from the first to the last, and no others", () => {
    const table = new HashTable(6);
    table.fill(7n, 2, 3);
    expect([0, 1, 2, 3, 4, 5].map((index) => table.get(index))).toEqual([0n, 0n, 7n, 7n, 7n, 0n]);
  });

  test.each([0, 1, 5, 6])("none is filled by a count of 0 at %i", (first) => {
    const table = new HashTable(6);
    const before = table.digest("");
    table.fill(7n, first, 0);
    expect(Array.from({ length: 6 }, (_, index) => table.get(index))).toEqual(Array(6).fill(0n));
    expect(table.digest("")).toBe(before);
  });
});

describe("the digest", () => {
  test.each([0, 1, CHUNK_ENTRIES - 1, CHUNK_ENTRIES, CHUNK_ENTRIES + 1, 3 * CHUNK_ENTRIES])(
    "of %i entries is the hash of the hashes of their chunks, behind the geometry",
    (entries) => {
      const table = new HashTable(entries);
      const expected = Array.from({ length: entries }, (_, index) => BigInt(index) * 3n);
      for (const [index, entry] of expected.entries()) table.set(index, entry);
      expect(table.digest("1:2;")).toBe(naiveDigest("1:2;", expected));
      expect(table.digest("1:3;")).toBe(naiveDigest("1:3;", expected));
    },
  );

  test("follows an entry that changes after it was taken, at the borders of chunks too", () => {
    const entries = 2 * CHUNK_ENTRIES + 5;
    const table = new HashTable(entries);
    const expected = Array.from({ length: entries }, () => 0n);
    for (const index of [0, CHUNK_ENTRIES - 1, CHUNK_ENTRIES, 2 * CHUNK_ENTRIES, entries - 1]) {
      table.set(index, 9n);
      expected[index] = 9n;
      expect(table.digest("")).toBe(naiveDigest("", expected));
    }
    table.fill(4n, CHUNK_ENTRIES - 1, 2);
    expected.fill(4n, CHUNK_ENTRIES - 1, CHUNK_ENTRIES + 1);
    expect(table.digest("")).toBe(naiveDigest("", expected));
  });

  test(`is that of its naive twin, whenever it was refreshed (SEED=${seed})`, async () => {
    const ENTRIES = 2 * CHUNK_ENTRIES + 77;
    const anyIndex = fc.oneof(
      fc.nat(ENTRIES - 1),
      fc.constantFrom(0, CHUNK_ENTRIES - 1, CHUNK_ENTRIES, 2 * CHUNK_ENTRIES, ENTRIES - 1),
    );
    const anyHash = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const step = fc.oneof(
      fc.record({ first: anyIndex, count: fc.constant(null), hash: anyHash }),
      fc.record({ first: anyIndex, count: fc.nat(ENTRIES), hash: anyHash }),
      fc.constantFrom("refresh" as const, "digest" as const),
    );
    const property = fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const table = new HashTable(ENTRIES);
      const expected = Array.from({ length: ENTRIES }, () => 0n);
      for (const each of steps) {
        if (each === "refresh") await table.refresh();
        else if (each === "digest") table.digest("x");
        else if (each.count === null) {
          table.set(each.first, each.hash);
          expected[each.first] = each.hash;
        } else {
          const count = Math.min(each.count, ENTRIES - each.first);
          table.fill(each.hash, each.first, count);
          expected.fill(each.hash, each.first, each.first + count);
        }
      }
      expect(table.digest("g;")).toBe(naiveDigest("g;", expected));
    });
    await fc.assert(property, { seed, numRuns: 25 });
  });

  test("covers what changed while it was being refreshed", async () => {
    const entries = 70 * CHUNK_ENTRIES;
    const table = new HashTable(entries);
    const refreshing = table.refresh();
    // The first 64 chunks are done, the others come when the event loop had its turn.
    table.set(0, 5n);
    table.fill(6n, entries - 3, 3);
    await refreshing;
    const expected = Array.from({ length: entries }, () => 0n);
    expected[0] = 5n;
    expected.fill(6n, entries - 3);
    expect(table.digest("")).toBe(naiveDigest("", expected));
  });

  test("gives the event loop its turn while it is being refreshed", async () => {
    const table = new HashTable(200 * CHUNK_ENTRIES);
    let turns = 0;
    let refreshed = false;
    const count = (): void => {
      if (refreshed) return;
      turns++;
      setImmediate(count);
    };
    setImmediate(count);
    await table.refresh();
    refreshed = true;
    expect(turns).toBeGreaterThanOrEqual(3);
  });
});

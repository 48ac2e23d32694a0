import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BloomTracker, FALSE_POSITIVE_RATE } from "./bloom-tracker.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
/** Of a disk of 4 GiB; the filter is made for a sixteenth of them. */
const BLOCKS = 65_536;
const CAPACITY = BLOCKS / 16;

/** `count` different blocks that lie anywhere. */
function scattered(count: number, salt: number): Set<number> {
  const blocks = new Set<number>();
  let state = (salt + 1) >>> 0;
  while (blocks.size < count) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    blocks.add(Math.floor((state / 2 ** 32) * BLOCKS));
  }
  return blocks;
}

/** One behind the other, as a guest writes a large file. */
function neighbours(count: number, salt: number): Set<number> {
  const first = (salt * 977) % (BLOCKS - count);
  return new Set(Array.from({ length: count }, (_, index) => first + index));
}

function trackerOf(blocks: Iterable<number>): BloomTracker {
  const tracker = new BloomTracker(BLOCKS);
  for (const block of blocks) tracker.mark(block);
  return tracker;
}

function falseRate(tracker: BloomTracker, marked: ReadonlySet<number>): number {
  let found = 0;
  for (let block = 0; block < BLOCKS; block++) {
    if (!marked.has(block) && tracker.has(block)) found++;
  }
  return found / (BLOCKS - marked.size);
}

describe("the Bloom filter of changed blocks", () => {
  test(`never denies a block that was marked, however full it is (SEED=${seed})`, () => {
    const blocks = fc.array(fc.nat(2 ** 26), { maxLength: 3000, size: "max" });
    const property = fc.property(blocks, (marks) => {
      const tracker = new BloomTracker(2 ** 10);
      for (const mark of marks) tracker.mark(mark);
      for (const mark of marks) expect(tracker.has(mark)).toBe(true);
    });
    fc.assert(property, { seed, numRuns: 30 });
  });

  test("claims at capacity about as much as it states, wherever the marked blocks lie", () => {
    for (const choose of [scattered, neighbours]) {
      const rates = Array.from({ length: 8 }, (_, salt) => {
        const marked = choose(CAPACITY, salt);
        return falseRate(trackerOf(marked), marked);
      });
      const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
      expect(mean, choose.name).toBeLessThan(FALSE_POSITIVE_RATE * 1.3);
      expect(Math.max(...rates), choose.name).toBeLessThan(FALSE_POSITIVE_RATE * 2);
    }
  });

  test("claims next to nothing while few blocks are marked", () => {
    const marked = scattered(CAPACITY / 8, 3);
    expect(falseRate(trackerOf(marked), marked)).toBeLessThan(0.0001);
  });

  test("counts what it was told, but for what it took for known already", () => {
    const marked = scattered(CAPACITY, 5);
    const tracker = trackerOf(marked);
    for (const block of marked) tracker.mark(block);
    expect(tracker.count).toBeLessThanOrEqual(CAPACITY);
    expect(tracker.count).toBeGreaterThan(CAPACITY * (1 - 2 * FALSE_POSITIVE_RATE));
  });

  test("is empty after it was cleared, and may be used again", () => {
    const tracker = trackerOf(scattered(CAPACITY, 7));
    tracker.clear();
    expect(tracker.count).toBe(0);
    expect(falseRate(tracker, new Set())).toBe(0);
    tracker.mark(12);
    expect([tracker.count, tracker.has(12)]).toEqual([1, true]);
  });

  test("answers the same whenever it is asked, right or wrong", () => {
    const tracker = trackerOf(scattered(CAPACITY, 11));
    const ask = (): boolean[] => Array.from({ length: BLOCKS }, (_, block) => tracker.has(block));
    expect(ask()).toEqual(ask());
  });
});

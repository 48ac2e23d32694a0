import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BitmapTracker } from "./bitmap-tracker.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

describe("the bitmap of changed blocks", () => {
  test(`knows exactly what was marked and how much that is (SEED=${seed})`, () => {
    const blocks = fc.integer({ min: 1, max: 300 });
    const property = fc.property(blocks, fc.array(fc.nat(299)), (count, marks) => {
      const tracker = new BitmapTracker(count);
      const naive = new Set<number>();
      for (const mark of marks.filter((block) => block < count)) {
        tracker.mark(mark);
        naive.add(mark);
        expect(tracker.count).toBe(naive.size);
      }
      for (let block = 0; block < count; block++) {
        expect(tracker.has(block)).toBe(naive.has(block));
      }
    });
    fc.assert(property, { seed });
  });

  test("is empty after it was cleared, and may be used again", () => {
    const tracker = new BitmapTracker(20);
    for (let block = 0; block < 20; block++) tracker.mark(block);
    tracker.clear();
    expect(tracker.count).toBe(0);
    expect(tracker.has(7)).toBe(false);
    tracker.mark(7);
    expect([tracker.count, tracker.has(7), tracker.has(8)]).toEqual([1, true, false]);
  });
});

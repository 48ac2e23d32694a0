import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { diskBudget } from "./disk-budget.ts";
import { SWITCHOVER_FIXED_MS } from "./switchover.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const LINK = 100_000_000;

describe("what disks may leave for the stun", () => {
  test("is half of what the link carries in the downtime budget, less what no link makes shorter", () => {
    const budget = diskBudget({
      downtimeMsMax: SWITCHOVER_FIXED_MS + 2 * 5 + 200,
      linkBytesPerSecond: LINK,
      roundTripMs: 5,
    });
    expect(budget.heldBytesMax).toBeCloseTo(200 * 100_000 * 0.2, 3);
    expect(budget.restBytesMax).toBeCloseTo(200 * 100_000 * 0.3, 3);
  });

  test("is nothing before the link was measured", () => {
    const budget = diskBudget({ downtimeMsMax: 300, linkBytesPerSecond: null, roundTripMs: 0 });
    expect(budget).toEqual({ heldBytesMax: 0, restBytesMax: 0 });
  });

  test("is nothing where the round trips alone take the budget", () => {
    const budget = diskBudget({ downtimeMsMax: 300, linkBytesPerSecond: LINK, roundTripMs: 150 });
    expect(budget).toEqual({ heldBytesMax: 0, restBytesMax: 0 });
  });

  test(`is never negative, and more with a faster link or a longer downtime (SEED=${seed})`, () => {
    const input = fc.record({
      downtimeMsMax: fc.integer({ min: 1, max: 60_000 }),
      linkBytesPerSecond: fc.double({ min: 0, max: 1e11, noNaN: true }),
      roundTripMs: fc.double({ min: 0, max: 2000, noNaN: true }),
    });
    const property = fc.property(input, fc.integer({ min: 1, max: 4 }), (less, factor) => {
      const more = {
        ...less,
        downtimeMsMax: less.downtimeMsMax * factor,
        linkBytesPerSecond: less.linkBytesPerSecond * factor,
      };
      const [small, large] = [diskBudget(less), diskBudget(more)];
      expect(small.heldBytesMax).toBeGreaterThanOrEqual(0);
      expect(small.restBytesMax).toBeGreaterThanOrEqual(0);
      expect(large.heldBytesMax).toBeGreaterThanOrEqual(small.heldBytesMax);
      expect(large.restBytesMax).toBeGreaterThanOrEqual(small.restBytesMax);
    });
    fc.assert(property, { seed });
  });
});

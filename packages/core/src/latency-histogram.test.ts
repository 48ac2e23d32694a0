import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LatencyHistogram } from "./latency-histogram.ts";

describe("a histogram of latencies", () => {
  test("knows no quantile before anything was counted", () => {
    expect(new LatencyHistogram().quantileUs(0.5)).toBeNull();
  });

  test("gives quantiles that are not less, and at most a fifth more, than those of the sorted list", () => {
    const values = fc.array(fc.double({ min: 1, max: 1e9, noNaN: true }), { minLength: 1 });
    fc.assert(
      fc.property(values, fc.constantFrom(0, 0.01, 0.5, 0.99, 1), (times, share) => {
        const histogram = new LatencyHistogram();
        for (const us of times) histogram.observe(us);
        const sorted = times.toSorted((a, b) => a - b);
        const exact = sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
        const found = histogram.quantileUs(share)!;
        expect(found).toBeGreaterThanOrEqual(Math.floor(exact));
        expect(found).toBeLessThanOrEqual(exact * 1.19 + 1);
        expect(histogram.count).toBe(times.length);
      }),
    );
  });

  test("counts in octaves for metrics, each bucket with all before it", () => {
    const histogram = new LatencyHistogram();
    for (const us of [0, 1, 2, 3, 4, 1000, 1e12]) histogram.observe(us);
    const upTo = (us: number): number =>
      histogram.buckets().find((bucket) => bucket.us === us)!.count;
    expect([1, 2, 4, 8, 1024, 2 ** 31].map(upTo)).toEqual([2, 3, 5, 5, 6, 6]);
    expect(histogram.buckets().at(-1)).toEqual({ us: Infinity, count: 7 });
    expect(histogram.buckets()).toHaveLength(33);
    expect(histogram.sumUs).toBe(1e12 + 1010);
  });
});

import { describe, expect, it } from "vitest";
import type { GuestReport } from "@vmferry/testkit";
import { diskPaceOf } from "../../bench/disk-pace.ts";

type Writes = readonly [count: number, p50Us: number, p99Us: number];

/** One report every 100 ms, after a first one that counts nothing. */
function reportsOf(...writes: readonly Writes[]): GuestReport[] {
  let diskWrites = 1000;
  return [[0, 9999, 9999] as const, ...writes].map(([count, diskP50Us, diskP99Us], index) => {
    diskWrites += count;
    return { diskWrites, diskP50Us, diskP99Us, seenAtMs: 5000 + index * 100 } as GuestReport;
  });
}

describe("diskPaceOf", () => {
  it("counts the writes of a second", () => {
    const reports = reportsOf([30, 100, 100], [10, 100, 100]);
    expect(diskPaceOf(reports)).toEqual({ writesPerSecond: 200, p50Us: 100, p99Us: 100 });
  });

  it("gives the percentiles of one report as they are", () => {
    expect(diskPaceOf(reportsOf([30, 120, 1800]))).toMatchObject({ p50Us: 120, p99Us: 1800 });
  });

  it("gives each report the weight of its writes", () => {
    const mostlyFast = reportsOf([99, 100, 100], [1, 5000, 5000]);
    expect(diskPaceOf(mostlyFast)).toMatchObject({ p50Us: 100, p99Us: 100 });
    const mostlySlow = reportsOf([1, 100, 100], [99, 5000, 5000]);
    expect(diskPaceOf(mostlySlow)).toMatchObject({ p50Us: 5000, p99Us: 5000 });
  });

  it("lets the slow part of some reports show in the 99th percentile of all", () => {
    const reports = reportsOf([100, 100, 200], [100, 100, 200], [100, 100, 9000]);
    const pace = diskPaceOf(reports);
    expect(pace?.p50Us).toBe(100);
    expect(pace?.p99Us).toBeGreaterThan(200);
  });

  it("does without a latency where nothing was written, and without all where nothing is known", () => {
    const idle = diskPaceOf(reportsOf([0, 0, 0], [0, 0, 0]));
    expect(idle).toEqual({ writesPerSecond: 0, p50Us: null, p99Us: null });
    expect(diskPaceOf(reportsOf())).toBe(null);
    expect(diskPaceOf([])).toBe(null);
  });
});

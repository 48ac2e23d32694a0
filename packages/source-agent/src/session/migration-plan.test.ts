import { expect, test } from "vitest";
import { changedLimits, whatOnStall } from "./migration-plan.ts";

const limits = { bandwidthBytesPerSecond: 1_000_000, downtimeMsMax: 300, totalMsMax: 60_000 };

test("a limit that the patch does not name stays", () => {
  expect(changedLimits(limits, { downtimeMsMax: 50 })).toEqual({ ...limits, downtimeMsMax: 50 });
});

test("null lifts a limit", () => {
  const changed = changedLimits(limits, { bandwidthBytesPerSecond: null, totalMsMax: null });
  expect(changed).toEqual({ bandwidthBytesPerSecond: null, downtimeMsMax: 300, totalMsMax: null });
});

test("the limits before the change are left as they were", () => {
  const before = { ...limits };
  changedLimits(before, { downtimeMsMax: 1 });
  expect(before).toEqual(limits);
});

test("a stall leads to post-copy, but for a request that has none", () => {
  expect(whatOnStall({ mode: "auto", onStall: "post-copy" })).toBe("post-copy");
  expect(whatOnStall({ mode: "pre-copy", onStall: "post-copy" })).toBe("throttle");
  expect(whatOnStall({ mode: "pre-copy", onStall: "stun" })).toBe("stun");
});

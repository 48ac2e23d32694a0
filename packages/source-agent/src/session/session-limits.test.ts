import { ManualClock } from "@vmferry/agent";
import { beforeEach, expect, test } from "vitest";
import { SessionLimits } from "./session-limits.ts";

const LIMITS = { bandwidthBytesPerSecond: 1_000_000, downtimeMsMax: 300, totalMsMax: 60_000 };
let clock: ManualClock;
let passed: unknown[];
let limits: SessionLimits;

beforeEach(() => {
  clock = new ManualClock();
  passed = [];
  limits = new SessionLimits(LIMITS, clock, (error) => passed.push(error));
});

test("a change is what everybody sees from then on", () => {
  limits.change({ downtimeMsMax: 50 });
  limits.change({ bandwidthBytesPerSecond: null });
  expect(limits.now).toEqual({
    bandwidthBytesPerSecond: null,
    downtimeMsMax: 50,
    totalMsMax: 60_000,
  });
});

test("a total that is lowered ends the attempt when it is over, counted from the beginning", () => {
  clock.advance(5000);
  limits.change({ totalMsMax: 5500 });
  clock.advance(499);
  expect(passed).toEqual([]);
  clock.advance(1);
  expect(passed).toEqual([expect.objectContaining({ code: "time-limit" })]);
});

test("a total that has passed already ends the attempt at once", () => {
  clock.advance(5000);
  limits.change({ totalMsMax: 1 });
  clock.advance(0);
  expect(passed).toHaveLength(1);
});

test("a total that is lifted never ends it", () => {
  limits.change({ totalMsMax: null });
  clock.advance(1e9);
  expect(passed).toEqual([]);
});

test("another limit leaves the total's time as it runs", () => {
  clock.advance(59_000);
  limits.change({ downtimeMsMax: 1 });
  clock.advance(1000);
  expect(passed).toHaveLength(1);
});

test("no time is counted after the stun, whatever is changed", () => {
  limits.end();
  limits.change({ totalMsMax: 1 });
  clock.advance(1e9);
  expect(passed).toEqual([]);
});

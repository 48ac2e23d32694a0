import { ManualClock } from "@vmferry/agent";
import { beforeEach, expect, test } from "vitest";
import { TotalLimit } from "./total-limit.ts";

let clock: ManualClock;
let passed: Error[];
let limit: TotalLimit;

beforeEach(() => {
  clock = new ManualClock();
  passed = [];
  limit = new TotalLimit(clock, (error) => passed.push(error));
});

test("ends an attempt that has not come to the stun by then, and says which limit it was", () => {
  limit.set(1000);
  clock.advance(999);
  expect(passed).toEqual([]);
  clock.advance(1);
  expect(passed).toEqual([expect.objectContaining({ code: "time-limit" })]);
  expect(String(passed[0])).toContain("1000 ms");
});

test("counts from the beginning when it is changed on the way", () => {
  limit.set(1000);
  clock.advance(500);
  limit.set(600);
  clock.advance(99);
  expect(passed).toEqual([]);
  clock.advance(1);
  expect(passed).toHaveLength(1);
});

test("ends the attempt at once where the new limit has passed already, but not within the call", () => {
  clock.advance(700);
  limit.set(600);
  expect(passed).toEqual([]);
  clock.advance(0);
  expect(passed).toHaveLength(1);
});

test("is none when it is taken away, or when the guest was stunned before", () => {
  limit.set(100);
  limit.set(null);
  clock.advance(1000);
  limit.set(2000);
  limit.end();
  limit.set(3000);
  clock.advance(9000);
  expect(passed).toEqual([]);
});

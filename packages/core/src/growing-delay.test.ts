import { expect, test } from "vitest";
import { growingDelay } from "./growing-delay.ts";

const RANGE = { msMin: 100, msMax: 700 };

test("a growing delay begins at its least, doubles, and stays at its most", () => {
  const nextDelayMs = growingDelay(RANGE);
  const delays = Array.from({ length: 6 }, () => nextDelayMs());
  expect(delays).toEqual([100, 200, 400, 700, 700, 700]);
});

test("growing delays of one range know nothing of each other", () => {
  const first = growingDelay(RANGE);
  first();
  first();
  expect(growingDelay(RANGE)()).toBe(100);
  expect(first()).toBe(400);
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { limits } from "@vmferry/protocol";
import { redialDelayMs } from "./redial-delay.ts";

const { REDIAL_MS_MIN, REDIAL_MS_MAX } = limits;

test("doubles up to its maximum", () => {
  const delays = [0, 1, 2, 3, 4, 50].map((attempt) => redialDelayMs(attempt, () => 0));
  expect(delays).toEqual([100, 200, 400, 800, REDIAL_MS_MAX, REDIAL_MS_MAX]);
});

test("is shortened at random by no more than a half", () => {
  fc.assert(
    fc.property(fc.nat(1000), fc.double({ min: 0, max: 0.999, noNaN: true }), (attempt, number) => {
      const delayMs = redialDelayMs(attempt, () => number);
      expect(delayMs).toBeGreaterThan(REDIAL_MS_MIN / 2);
      expect(delayMs).toBeLessThanOrEqual(REDIAL_MS_MAX);
      expect(delayMs).toBeGreaterThanOrEqual(redialDelayMs(attempt, () => 0) / 2);
    }),
  );
});

import { expect, test } from "vitest";
import { parseDurationMs } from "./parse-duration.ts";

test.each([
  ["300ms", 300],
  ["1ms", 1],
  ["2s", 2000],
  ["1.5s", 1500],
  ["1.001s", 1001],
  ["0.3s", 300],
  ["2m", 120_000],
  ["1h", 3_600_000],
])("%s are %i ms", (text, durationMs) => {
  expect(parseDurationMs(text)).toBe(durationMs);
});

test.each([
  "",
  "ms",
  "-1s",
  "+1s",
  "1 s",
  "1S",
  "1sec",
  "1M",
  "1e3ms",
  ".5s",
  "0x10ms",
  "1s1s",
  "1,5s",
])("%j is no duration", (text) => {
  expect(() => parseDurationMs(text)).toThrow(`"${text}" is no duration such as 300ms`);
});

test("a number without a unit is refused with the likely one, for nobody knows what was meant", () => {
  expect(() => parseDurationMs("300")).toThrow("did you mean 300ms?");
});

test.each(["0ms", "0s", "0.5ms", "1.0005s", "99999999999999999h"])(
  "%s is no whole number of milliseconds that can be sent",
  (text) => {
    expect(() => parseDurationMs(text)).toThrow("whole number of milliseconds");
  },
);

import { expect, test } from "vitest";
import { formatBytes, formatDuration, formatRate } from "./format-amount.ts";

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.00 KiB"],
  [10_240, "10.0 KiB"],
  [104_857_600, "100 MiB"],
  [1_073_741_823, "1.00 GiB"],
  [360_563_154, "344 MiB"],
  [1_610_612_736, "1.50 GiB"],
  [2 ** 50, "1024 TiB"],
])("%i bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test.each([
  [0, "0 B/s"],
  [999, "999 B/s"],
  [999_999, "1.00 MB/s"],
  [58_837_536.3, "58.8 MB/s"],
  [125_000_000, "125 MB/s"],
  [9_994_000_000, "9.99 GB/s"],
])("%d bytes a second are %s", (rate, text) => {
  expect(formatRate(rate)).toBe(text);
});

test.each([
  [0, "0 ms"],
  [394.6, "395 ms"],
  [999.6, "1.00 s"],
  [6590.8, "6.59 s"],
  [59_400, "59.4 s"],
  [59_999, "1 min 0 s"],
  [125_000, "2 min 5 s"],
  [3_599_999, "1 h 0 min"],
  [3_720_000, "1 h 2 min"],
])("%d ms are %s", (durationMs, text) => {
  expect(formatDuration(durationMs)).toBe(text);
});

test("what is not known is called unknown", () => {
  expect([formatBytes(null), formatRate(null), formatDuration(null)]).toEqual([
    "unknown",
    "unknown",
    "unknown",
  ]);
});

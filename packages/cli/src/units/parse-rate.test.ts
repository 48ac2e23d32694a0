import { expect, test } from "vitest";
import { parseBytesPerSecond } from "./parse-rate.ts";

test.each([
  ["104857600", 104_857_600],
  ["5000B/s", 5000],
  ["64kB/s", 64_000],
  ["100MB/s", 100_000_000],
  ["1.5GB/s", 1_500_000_000],
  ["64KiB/s", 65_536],
  ["100MiB/s", 104_857_600],
  ["1GiB/s", 1_073_741_824],
  ["800kbit/s", 100_000],
  ["100Mbit/s", 12_500_000],
  ["1Gbit/s", 125_000_000],
  ["2.5Gbit/s", 312_500_000],
])("%s are %i bytes a second", (text, rate) => {
  expect(parseBytesPerSecond(text)).toBe(rate);
});

test.each([
  "",
  "MB/s",
  "-1",
  "1e6",
  "0x10",
  "100 MB/s",
  "100MB",
  "100mb/s",
  "1Gbps",
  "1gbit/s",
  "∞",
])("%j is no rate", (text) => {
  expect(() => parseBytesPerSecond(text)).toThrow(`"${text}" is no rate such as 100MB/s`);
});

test.each([
  ["100mb/s", "did you mean 100MB/s?"],
  ["100MB", "did you mean 100MB/s?"],
  ["1gbit/s", "did you mean 1Gbit/s?"],
  ["64KB/s", "did you mean 64kB/s?"],
])("%s is refused with the unit that was probably meant", (text, hint) => {
  expect(() => parseBytesPerSecond(text)).toThrow(hint);
});

test.each(["0", "0MB/s", "0.1", "99999999999GB/s"])("%s is out of range", (text) => {
  expect(() => parseBytesPerSecond(text)).toThrow("at least one byte a second");
});

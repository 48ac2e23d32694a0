import { describe, expect, it } from "vitest";
import { formatBytes, formatMs, formatRate, formatShare, formatTime, formatUs } from "./format.ts";

describe("amounts", () => {
  it.each([
    [null, "–"],
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [1536 * 1024, "1.5 MiB"],
    [300 * 1024 ** 3, "300 GiB"],
    [2 ** 53, "8.0 PiB"],
  ])("of %s bytes are %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [null, "–"],
    [0, "0.0 ms"],
    [2.25, "2.3 ms"],
    [999, "999 ms"],
    [1500, "1.5 s"],
    [61_000, "01:01 min"],
    [3_661_000, "1:01:01 h"],
  ])("of %s milliseconds are %s", (ms, text) => {
    expect(formatMs(ms)).toBe(text);
  });

  it("of microseconds, of rates and of shares have their units", () => {
    expect([formatUs(850), formatUs(2300), formatUs(null)]).toEqual(["850 µs", "2.3 ms", "–"]);
    expect([formatRate(2048), formatRate(null)]).toEqual(["2.0 KiB/s", "–"]);
    expect([formatShare(0), formatShare(0.001), formatShare(0.5)]).toEqual(["0 %", "<1 %", "50 %"]);
  });

  it("that are no time are not known", () => {
    expect(formatTime("soon")).toBe("–");
  });
});

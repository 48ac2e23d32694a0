import { describe, expect, test } from "vitest";
import { LinkRate } from "./link-rate.ts";

/** Windows of 100 ms, each with so many bytes; `waited` = the link kept the sender waiting. */
function feed(rate: LinkRate, windows: readonly { bytes: number; waited: boolean }[]): void {
  let nowMs = 1000;
  rate.acknowledged(0, nowMs);
  for (const { bytes, waited } of windows) {
    if (waited) rate.waited();
    nowMs += 100;
    rate.acknowledged(bytes, nowMs);
  }
}

describe("the link's rate", () => {
  test("is not known before the first window is over", () => {
    const rate = new LinkRate();
    expect(rate.bytesPerSecond).toBeNull();
    rate.acknowledged(1_000_000, 5);
    rate.acknowledged(1_000_000, 104);
    expect(rate.bytesPerSecond).toBeNull();
    rate.acknowledged(0, 105);
    expect(rate.bytesPerSecond).toBe(20_000_000);
  });

  test("is what the first window carried, whether the sender waited or not", () => {
    for (const waited of [true, false]) {
      const rate = new LinkRate();
      feed(rate, [{ bytes: 5000, waited }]);
      expect(rate.bytesPerSecond).toBe(50_000);
    }
  });

  test("counts a window by its real length, not by 100 ms", () => {
    const rate = new LinkRate();
    rate.acknowledged(0, 0);
    rate.acknowledged(1000, 250);
    expect(rate.bytesPerSecond).toBe(4000);
  });

  test("follows a slower link as soon as the sender has to wait for it", () => {
    const rate = new LinkRate();
    const slow = Array.from({ length: 20 }, () => ({ bytes: 1000, waited: true }));
    feed(rate, [{ bytes: 100_000, waited: true }, ...slow]);
    expect(rate.bytesPerSecond).toBeGreaterThanOrEqual(10_000);
    expect(rate.bytesPerSecond).toBeLessThan(12_000);
  });

  test("does not fall while the sender has little to send", () => {
    const rate = new LinkRate();
    const idle = Array.from({ length: 20 }, () => ({ bytes: 10, waited: false }));
    feed(rate, [{ bytes: 100_000, waited: true }, ...idle]);
    expect(rate.bytesPerSecond).toBe(1_000_000);
  });

  test("rises at once to what came through without waiting", () => {
    const rate = new LinkRate();
    feed(rate, [
      { bytes: 1000, waited: true },
      { bytes: 9000, waited: false },
    ]);
    expect(rate.bytesPerSecond).toBe(90_000);
  });

  test("forgets that it waited when the window is over", () => {
    const rate = new LinkRate();
    feed(rate, [
      { bytes: 9000, waited: true },
      { bytes: 10, waited: false },
    ]);
    expect(rate.bytesPerSecond).toBe(90_000);
  });

  test("is never more than the bandwidth limit, from the moment that it is set", () => {
    const rate = new LinkRate();
    feed(rate, [{ bytes: 100_000, waited: true }]);
    rate.setLimit(4096);
    expect(rate.bytesPerSecond).toBe(4096);
    rate.setLimit(null);
    expect(rate.bytesPerSecond).toBe(1_000_000);
  });

  test("is not known by a limit alone", () => {
    const rate = new LinkRate();
    rate.setLimit(4096);
    expect(rate.bytesPerSecond).toBeNull();
  });
});

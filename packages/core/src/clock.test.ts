import { describe, expect, test } from "vitest";
import { systemClock } from "./clock.ts";

describe("the system clock", () => {
  test("calls back once, not before its time, and not when it was cancelled", async () => {
    const startMs = systemClock.nowMs();
    let cancelledCame = false;
    const cancel = systemClock.after(1, () => {
      cancelledCame = true;
    });
    cancel();
    await new Promise<void>((resolve) => {
      systemClock.after(10, resolve);
    });
    // Timers are rounded to milliseconds.
    expect(systemClock.nowMs() - startMs).toBeGreaterThanOrEqual(9);
    expect(cancelledCame).toBe(false);
  });

  test("never goes back", () => {
    let lastMs = systemClock.nowMs();
    for (let i = 0; i < 1000; i++) {
      const nowMs = systemClock.nowMs();
      expect(nowMs >= lastMs).toBe(true);
      lastMs = nowMs;
    }
  });

  test("knows the date", () => {
    expect(Math.abs(systemClock.date().getTime() - Date.now())).toBeLessThan(1000);
  });
});

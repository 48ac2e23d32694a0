import { describe, expect, test } from "vitest";
import { sleep, systemClock } from "./clock.ts";

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

describe("sleep", () => {
  /** Its timers never expire. */
  const endless = { ...systemClock, after: () => () => (cancelled += 1) };
  let cancelled = 0;

  test("ends when its time is up", async () => {
    await sleep(systemClock, 1, new AbortController().signal);
  });

  test("ends as soon as it is aborted, also before it began, and leaves no timer", async () => {
    const controller = new AbortController();
    const sleeping = sleep(endless, 1000, controller.signal);
    controller.abort();
    await sleeping;
    await sleep(endless, 1000, controller.signal);
    expect(cancelled).toBe(2);
  });
});

import { describe, expect, test } from "vitest";
import { StallWatch } from "./stall-watch.ts";

const MIB = 2 ** 20;

/** A pass every `everyMs` that begins with what `toSend` says of it; returns the time after them. */
function passes(
  watch: StallWatch,
  plan: { count: number; everyMs: number; fromMs: number; toSend: (pass: number) => number },
): number {
  let nowMs = plan.fromMs;
  for (let pass = 0; pass < plan.count; pass++) {
    watch.passBegan(plan.toSend(pass), nowMs);
    nowMs += plan.everyMs;
  }
  return nowMs;
}

const flat = (): number => 100 * MIB;

describe("a stall", () => {
  test("is not seen before anything was sent", () => {
    expect(new StallWatch().stalled(1e9)).toBe(false);
  });

  test("is many passes and a long time without a gain", () => {
    const watch = new StallWatch();
    const nowMs = passes(watch, { count: 9, everyMs: 2000, fromMs: 0, toSend: flat });
    expect(watch.stalled(nowMs)).toBe(true);
  });

  test("is not many short passes within a few seconds", () => {
    const watch = new StallWatch();
    const nowMs = passes(watch, { count: 500, everyMs: 10, fromMs: 0, toSend: flat });
    expect(watch.stalled(nowMs)).toBe(false);
    expect(watch.stalled(9_999)).toBe(false);
    expect(watch.stalled(10_000)).toBe(true);
  });

  test("is not a few long passes", () => {
    const watch = new StallWatch();
    const nowMs = passes(watch, { count: 4, everyMs: 60_000, fromMs: 0, toSend: flat });
    expect(watch.stalled(nowMs)).toBe(false);
  });

  test("is not a link that is down, which makes no passes", () => {
    const watch = new StallWatch();
    const nowMs = passes(watch, { count: 3, everyMs: 100, fromMs: 0, toSend: flat });
    expect(watch.stalled(nowMs + 3_600_000)).toBe(false);
  });

  test("never comes while every pass has clearly less to send than the one before", () => {
    const watch = new StallWatch();
    let nowMs = 0;
    for (let pass = 0; pass < 100; pass++) {
      watch.passBegan(1e12 * 0.95 ** pass, nowMs);
      nowMs += 5000;
      expect(watch.stalled(nowMs)).toBe(false);
    }
  });

  test("comes when passes only creep down by less than counts as a gain", () => {
    const watch = new StallWatch();
    // 0.4 % less from pass to pass: after ten of them it adds up to a gain of 4 %.
    passes(watch, { count: 9, everyMs: 5000, fromMs: 0, toSend: (pass) => 1e9 * 0.996 ** pass });
    expect(watch.stalled(45_000)).toBe(true);
  });

  test("counts slow gains that add up", () => {
    const watch = new StallWatch();
    const toSend = (pass: number): number => 1e12 * 0.985 ** pass;
    let nowMs = 0;
    for (let pass = 0; pass < 60; pass++) {
      watch.passBegan(toSend(pass), nowMs);
      nowMs += 5000;
      expect(watch.stalled(nowMs)).toBe(false);
    }
  });

  test("is over with the next gain, and a pass that goes up and down again is none", () => {
    const watch = new StallWatch();
    const nowMs = passes(watch, { count: 20, everyMs: 2000, fromMs: 0, toSend: flat });
    expect(watch.stalled(nowMs)).toBe(true);
    watch.passBegan(50 * MIB, nowMs);
    expect(watch.stalled(nowMs)).toBe(false);
    // Back to 100 MiB and down to 50 again: the least was 50 already.
    const bouncing = (pass: number): number => (pass % 2 === 0 ? 100 : 50) * MIB;
    const laterMs = passes(watch, { count: 8, everyMs: 2000, fromMs: nowMs, toSend: bouncing });
    expect(watch.stalled(laterMs)).toBe(true);
  });
});

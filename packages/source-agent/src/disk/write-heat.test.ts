import { describe, expect, test } from "vitest";
import { WriteHeat } from "./write-heat.ts";

const HOUR_MS = 3_600_000;

describe("the heat of a block", () => {
  test("is the bytes that were added, each block for itself", () => {
    const heat = new WriteHeat(3);
    expect(heat.add(1, 1000, 50)).toBe(1000);
    expect(heat.add(1, 500, 50)).toBe(1500);
    expect([heat.now(0, 50), heat.now(1, 50), heat.now(2, 50)]).toEqual([0, 1500, 0]);
  });

  test("halves every two seconds", () => {
    const heat = new WriteHeat(1);
    heat.add(0, 4096, 7000);
    expect(heat.now(0, 9000)).toBeCloseTo(2048, 3);
    expect(heat.now(0, 11_000)).toBeCloseTo(1024, 3);
    expect(heat.add(0, 1024, 11_000)).toBeCloseTo(2048, 3);
    expect(heat.now(0, 13_000)).toBeCloseTo(1024, 3);
  });

  test("of a block that is written again and again goes towards a limit and stays there", () => {
    const heat = new WriteHeat(1);
    for (let ms = 0; ms < 600_000; ms += 100) heat.add(0, 512, ms);
    const settled = 512 / (1 - 2 ** (-100 / 2000));
    expect(heat.now(0, 599_900) / settled).toBeCloseTo(1, 3);
  });

  test("keeps its pace after days", () => {
    const heat = new WriteHeat(1);
    heat.add(0, 1, 0);
    for (const hours of [1, 24, 240]) {
      const nowMs = hours * HOUR_MS + 0.3;
      heat.add(0, 4096, nowMs);
      const left = heat.now(0, nowMs + 2000);
      expect(Math.abs(left - 2048), `${hours} hours`).toBeLessThan(30);
    }
  });
});

describe("the time since a block was written", () => {
  test("is counted from its last write, or from the first of all", () => {
    const heat = new WriteHeat(2);
    expect(heat.idleMs(0, 5000)).toBe(0);
    heat.add(0, 1, 5000);
    heat.add(0, 1, 5250);
    expect(heat.idleMs(0, 6000)).toBe(750);
    expect(heat.idleMs(1, 6000)).toBe(1000);
  });

  test("is never negative, however the last write was rounded", () => {
    const heat = new WriteHeat(1);
    heat.add(0, 1, 0);
    for (let i = 1; i <= 2000; i++) {
      const nowMs = i * 4321.0987;
      heat.add(0, 1, nowMs);
      expect(heat.idleMs(0, nowMs), `at ${nowMs}`).toBeGreaterThanOrEqual(0);
    }
  });
});

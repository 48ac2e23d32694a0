import { describe, expect, test } from "vitest";
import { Quiet } from "./quiet.ts";

/** Somebody asks once a millisecond, and has it at once; tells in which of them the background may go. */
function busyMs(quiet: Quiet, fromMs: number, toMs: number): number[] {
  const busy: number[] = [];
  for (let nowMs = fromMs; nowMs < toMs; nowMs++) {
    quiet.asked(nowMs);
    quiet.answered(nowMs);
    if (quiet.waitMs(nowMs) === 0) busy.push(nowMs);
  }
  return busy;
}

describe("the background", () => {
  test("goes on while nobody asks for anything", () => {
    expect(new Quiet(0).waitMs(1000)).toBe(0);
  });

  test("is quiet until somebody has what it asked for, and a moment longer", () => {
    const quiet = new Quiet(0);
    quiet.asked(100);
    expect(quiet.waitMs(110)).toBeGreaterThan(0);
    quiet.answered(110);
    expect([110, 113, 114].map((nowMs) => quiet.waitMs(nowMs))).toEqual([4, 1, 0]);
  });

  test("goes on when its share is used up, whatever somebody waits for", () => {
    const quiet = new Quiet(0);
    quiet.asked(100);
    expect([100, 119, 120].map((nowMs) => quiet.waitMs(nowMs))).toEqual([20, 1, 0]);
  });

  test("is not made quiet by an answer", () => {
    const quiet = new Quiet(0);
    quiet.answered(100);
    expect(quiet.waitMs(100)).toBe(0);
  });

  test("has half of the time where somebody asks again and again, in turns of 40 ms", () => {
    const busy = busyMs(new Quiet(0), 0, 800);
    expect(busy.length).toBeGreaterThan(380);
    expect(busy.length).toBeLessThan(420);
    const turns = busy.filter((nowMs, index) => busy[index - 1] !== nowMs - 1);
    expect(turns).toHaveLength(10);
    expect(turns[0]).toBeGreaterThanOrEqual(38);
  });

  test("saves up no more than one turn of quiet", () => {
    const quiet = new Quiet(0);
    quiet.asked(60_000);
    expect(busyMs(quiet, 60_001, 60_100)[0]).toBeLessThan(60_042);
  });
});

import { expect, test } from "vitest";
import { PullWindow } from "./pull-window.ts";

/** A link that takes `unitMs` a unit, one after another, and `tripMs` there and back. */
function settle(window: PullWindow, link: { unitMs: number; tripMs: number }, from = 0): number {
  let nowMs = from;
  let freeMs = nowMs;
  const under: { asked: number; due: number }[] = [];
  for (let answers = 0; answers < 4000; answers++) {
    while (under.length < window.units) {
      freeMs = Math.max(freeMs, nowMs + link.tripMs / 2) + link.unitMs;
      under.push({ asked: nowMs, due: freeMs + link.tripMs / 2 });
    }
    const { asked, due } = under.shift()!;
    nowMs = due;
    window.answered(nowMs - asked, nowMs);
  }
  return nowMs;
}

test("on a quick link the window grows as far as it may", () => {
  const window = new PullWindow();
  settle(window, { unitMs: 0.1, tripMs: 0.2 });
  expect(window.units).toBe(128);
});

test("on a slow link some 40 ms are under way, and no more", () => {
  const window = new PullWindow();
  settle(window, { unitMs: 5, tripMs: 1 });
  expect(window.units * 5).toBeGreaterThan(25);
  expect(window.units * 5).toBeLessThan(60);
});

test("on a long link it is filled all the same", () => {
  const window = new PullWindow();
  settle(window, { unitMs: 5, tripMs: 200 });
  expect(window.units * 5).toBeGreaterThan(150);
});

test("where a unit takes longer than that, two are under way: one of them is always asked for", () => {
  const window = new PullWindow();
  settle(window, { unitMs: 500, tripMs: 1 });
  expect(window.units).toBe(2);
});

test("a link that becomes slower shrinks it, and one that becomes quicker lets it grow again", () => {
  const window = new PullWindow();
  let nowMs = settle(window, { unitMs: 0.1, tripMs: 0.2 });
  nowMs = settle(window, { unitMs: 20, tripMs: 0.2 }, nowMs);
  // It may be in the middle of finding out anew.
  expect(window.units).toBeLessThanOrEqual(8);
  settle(window, { unitMs: 0.1, tripMs: 0.2 }, nowMs);
  expect(window.units).toBeGreaterThan(64);
});

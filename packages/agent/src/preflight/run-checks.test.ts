import { describe, expect, test } from "vitest";
import { ManualClock } from "../events/manual-clock.ts";
import { fails, inTime, passes, runChecks, skips } from "./run-checks.ts";

const clock = new ManualClock();

describe("checks", () => {
  test("have their names, and the order in which they were asked for", async () => {
    const late = Promise.resolve().then(() => passes("late"));
    const checks = await runChecks(
      { slow: () => late, quick: () => fails("bad", "mend it"), none: () => skips("nothing") },
      { clock, msMax: 1000 },
    );
    expect(checks).toEqual([
      { name: "slow", status: "pass", detail: "late", hint: null },
      { name: "quick", status: "fail", detail: "bad", hint: "mend it" },
      { name: "none", status: "skip", detail: "nothing", hint: null },
    ]);
  });

  test("that throw are warnings, and the others are heard all the same", async () => {
    const broken = (): never => {
      throw new Error("no such file");
    };
    const checks = await runChecks({ broken, whole: () => passes("fine") }, { clock, msMax: 1000 });
    expect(checks).toMatchObject([
      { name: "broken", status: "warn", detail: "It could not be looked at: no such file" },
      { name: "whole", status: "pass" },
    ]);
  });

  test("that take too long are warnings, and are not waited for", async () => {
    const never = new Promise<never>(() => undefined);
    const running = runChecks({ stuck: () => never }, { clock, msMax: 5000 });
    clock.advance(5000);
    expect(await running).toMatchObject([
      { name: "stuck", status: "warn", detail: expect.stringContaining("5000 ms") as string },
    ]);
  });
});

test("what is in time leaves no timer behind", async () => {
  const cancelled: boolean[] = [];
  const counting = {
    after: () => () => void cancelled.push(true),
    nowMs: () => 0,
    date: () => new Date(0),
  };
  expect(await inTime(Promise.resolve(7), { clock: counting, msMax: 1 })).toBe(7);
  expect(cancelled).toEqual([true]);
});

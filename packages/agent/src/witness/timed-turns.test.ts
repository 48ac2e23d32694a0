import { Deferred } from "@vmferry/core";
import { beforeEach, expect, test } from "vitest";
import { ManualClock } from "../events/manual-clock.ts";
import { TimedTurns } from "./timed-turns.ts";

let clock: ManualClock;
let turns: TimedTurns;
let begun: string[];

beforeEach(() => {
  clock = new ManualClock();
  turns = new TimedTurns(clock);
  begun = [];
});

function run<T>(name: string, work: Promise<T>, timeoutMs = 100): Promise<T> {
  const begin = (): Promise<T> => {
    begun.push(name);
    return work;
  };
  return turns.run(begin, { timeoutMs, late: () => new Error(`${name} is late`) });
}

test("work is done one at a time, in the order of the calls", async () => {
  const [first, second] = [new Deferred<string>(), new Deferred<string>()];
  const [one, two, three] = [
    run("1", first.promise),
    run("2", second.promise),
    run("3", Promise.resolve("c")),
  ];
  expect(begun).toEqual(["1"]);
  first.resolve("a");
  expect(await one).toBe("a");
  expect(begun).not.toContain("3");
  second.resolve("b");
  expect(await Promise.all([two, three])).toEqual(["b", "c"]);
  expect(begun).toEqual(["1", "2", "3"]);
  expect(clock.timerCount).toBe(0);
});

test("work that fails gives its turn to the next", async () => {
  const failed = run("1", Promise.reject(new Error("EIO")));
  const next = run("2", Promise.resolve("b"));
  await expect(failed).rejects.toThrow("EIO");
  expect(await next).toBe("b");
});

test("nobody waits for longer than agreed, be it for the work or for its turn", async () => {
  const hung = new Deferred();
  const late = [run("1", hung.promise, 100), run("2", Promise.resolve(), 200)];
  const results = Promise.allSettled(late);
  clock.advance(200);
  expect(await results).toMatchObject([
    { reason: { message: "1 is late" } },
    { reason: { message: "2 is late" } },
  ]);
  expect(clock.timerCount).toBe(0);
});

test("work that is late keeps its turn until it ends, and is told", async () => {
  const hung = new Deferred();
  const told = new Deferred<AbortSignal>();
  const late = turns.run(
    async (signal) => {
      told.resolve(signal);
      await hung.promise;
    },
    { timeoutMs: 100, late: () => new Error("late") },
  );
  clock.advance(100);
  await expect(late).rejects.toThrow("late");
  expect((await told.promise).aborted).toBe(true);
  const next = run("2", Promise.resolve("b"));
  expect(begun).toEqual([]);
  hung.resolve();
  expect(await next).toBe("b");
});

test("work that is late before its turn has come is never begun", async () => {
  const hung = new Deferred();
  const first = run("1", hung.promise, 1000);
  const late = run("2", Promise.resolve(), 100);
  const next = run("3", Promise.resolve("c"), 1000);
  clock.advance(100);
  await expect(late).rejects.toThrow("2 is late");
  hung.resolve();
  await first;
  expect(await next).toBe("c");
  expect(begun).toEqual(["1", "3"]);
});

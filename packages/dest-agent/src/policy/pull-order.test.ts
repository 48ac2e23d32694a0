import { expect, test } from "vitest";
import { PullOrder } from "./pull-order.ts";

const all = (): boolean => true;

test("without a demand the disk is pulled from its beginning to its end, once round", () => {
  const order = new PullOrder(10);
  const taken = new Set([3]);
  const wanted = (unit: number): boolean => !taken.has(unit);
  const runs = [];
  for (;;) {
    const run = order.next(wanted, 4);
    if (run === null) break;
    runs.push(run);
    for (let i = 0; i < run.count; i++) taken.add(run.first + i);
  }
  expect(runs).toEqual([
    { first: 0, count: 3 },
    { first: 4, count: 4 },
    { first: 8, count: 2 },
  ]);
});

test("what lies ahead of the newest demand comes first", () => {
  const order = new PullOrder(100);
  order.demanded({ first: 20, count: 1 });
  order.demanded({ first: 50, count: 2 });
  expect(order.next(all, 64)).toEqual({ first: 52, count: 2 });
  expect(order.next((unit) => unit < 52 || unit > 53, 64)).toEqual({ first: 21, count: 2 });
  expect(order.next((unit) => unit < 20, 64)).toEqual({ first: 0, count: 20 });
});

test("the longer a demand goes on, the further ahead is pulled", () => {
  const order = new PullOrder(1000);
  const ahead = [];
  for (let at = 100; ahead.length < 7;) {
    order.demanded({ first: at, count: 1 });
    const run = order.next(all, 64)!;
    ahead.push(run.count);
    at = run.first + run.count;
  }
  expect(ahead).toEqual([2, 4, 8, 16, 32, 64, 64]);
});

test("nothing is pulled behind the end of the disk", () => {
  const order = new PullOrder(10);
  order.demanded({ first: 8, count: 1 });
  expect(order.next(all, 64)).toEqual({ first: 9, count: 1 });
  order.demanded({ first: 9, count: 1 });
  expect(order.next((unit) => unit === 9, 64)).toEqual({ first: 9, count: 1 });
});

test("what was deferred is left out until it is tried again", () => {
  const order = new PullOrder(3);
  order.defer(1);
  expect(order.deferred).toBe(1);
  expect(order.next(all, 64)).toEqual({ first: 0, count: 1 });
  expect(order.next((unit) => unit === 1, 64)).toBe(null);
  order.retry();
  expect(order.next((unit) => unit === 1, 64)).toEqual({ first: 1, count: 1 });
});

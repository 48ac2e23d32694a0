import { InvariantError } from "@vmferry/core";
import { expect, test } from "vitest";
import { InFlightBudget } from "./in-flight-budget.ts";

const LIMITS = { requestsMax: 3, bytesMax: 100 };

/** Whether the promise has settled once every reaction that is due has run. */
async function settles(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise.then(() => {
    settled = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  return settled;
}

test("requests up to the limit need not wait, and the next one waits for a release", async () => {
  const budget = new InFlightBudget(LIMITS);
  for (let i = 0; i < 3; i++) expect(await settles(budget.take(0))).toBe(true);
  const fourth = budget.take(0);
  expect(await settles(fourth)).toBe(false);
  budget.release(0);
  expect(await settles(fourth)).toBe(true);
  expect(budget.requests).toBe(3);
});

test("bytes up to the limit need not wait, and more wait until enough are released", async () => {
  const budget = new InFlightBudget(LIMITS);
  await budget.take(60);
  await budget.take(40);
  const next = budget.take(50);
  budget.release(40);
  expect(await settles(next)).toBe(false);
  budget.release(60);
  expect(await settles(next)).toBe(true);
  expect(budget.bytes).toBe(50);
});

test("it is idle when everything was released, and before anything was taken", async () => {
  const budget = new InFlightBudget(LIMITS);
  expect(await settles(budget.idle())).toBe(true);
  await budget.take(1);
  await budget.take(2);
  const idle = budget.idle();
  budget.release(2);
  expect(await settles(idle)).toBe(false);
  budget.release(1);
  expect(await settles(idle)).toBe(true);
});

test("a request that would never fit, and a release of what was not taken, are our own bugs", async () => {
  const budget = new InFlightBudget(LIMITS);
  await expect(budget.take(101)).rejects.toThrow(InvariantError);
  expect(() => {
    budget.release(0);
  }).toThrow(InvariantError);
  await budget.take(1);
  expect(() => {
    budget.release(2);
  }).toThrow(InvariantError);
});

import { beforeEach, expect, test } from "vitest";
import { ManualClock } from "../events/manual-clock.ts";
import { ProblemError } from "../problem-error.ts";
import { IdempotencyKeys } from "./idempotency-keys.ts";

const DAY_MS = 86_400_000;
let clock: ManualClock;
let keys: IdempotencyKeys;
let begun: number;

beforeEach(() => {
  clock = new ManualClock();
  keys = new IdempotencyKeys(clock);
  begun = 0;
});

const ask = (key: string, body: unknown = { guest: "web1" }): Promise<string> =>
  keys.once(key, body, () => Promise.resolve(`m${++begun}`));

test("the same key and body are the same migration, whatever the order of properties", async () => {
  expect(await ask("k", { guest: "web1", limits: { a: 1, b: 2 } })).toBe("m1");
  expect(await ask("k", { limits: { b: 2, a: 1 }, guest: "web1" })).toBe("m1");
  expect(begun).toBe(1);
});

test("another key is another migration", async () => {
  expect([await ask("k"), await ask("l")]).toEqual(["m1", "m2"]);
});

test.each([{ guest: "web2" }, { guest: "web1", x: null }, {}, [], ["web1"]])(
  "the same key with the body %j is a conflict",
  async (body) => {
    await ask("k");
    await expect(ask("k", body)).rejects.toMatchObject({ code: "idempotency-conflict" });
    expect(begun).toBe(1);
  },
);

test("a request that comes while the first is still at work gets the first's answer", async () => {
  const slow = Promise.withResolvers<string>();
  const first = keys.once("k", {}, () => slow.promise);
  const second = keys.once("k", {}, () => Promise.reject(new Error("begun twice")));
  slow.resolve("m1");
  expect(await Promise.all([first, second])).toEqual(["m1", "m1"]);
});

test("a request that was refused leaves its key free", async () => {
  const refusal = new ProblemError("web1 is paused", { code: "guest-not-running" });
  const refused = keys.once("k", {}, () => Promise.reject(refusal));
  await expect(refused).rejects.toBe(refusal);
  expect(await ask("k", { guest: "web2" })).toBe("m1");
});

test("a key is kept for a day", async () => {
  await ask("k");
  clock.advance(DAY_MS);
  expect(await ask("k")).toBe("m1");
  clock.advance(1);
  expect(await ask("k")).toBe("m2");
});

test("a thousand keys are kept, the latest", async () => {
  for (let n = 0; n <= 1000; n++) await ask(`k${n}`);
  expect(await ask("k1000")).toBe("m1001");
  expect(await ask("k2")).toBe("m3");
  expect(await ask("k0")).toBe("m1002");
});

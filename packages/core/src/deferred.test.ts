import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Deferred } from "./deferred.ts";

describe("a deferred", () => {
  test("resolves for everybody who waits, before and after", async () => {
    const deferred = new Deferred<number>();
    const before = deferred.promise;
    expect(deferred.settled).toBe(false);
    deferred.resolve(7);
    expect(deferred.settled).toBe(true);
    expect(await before).toBe(7);
    expect(await deferred.promise).toBe(7);
  });

  test("rejects with the reason that it was given", async () => {
    const deferred = new Deferred<number>();
    const reason = new Error("lost");
    deferred.reject(reason);
    expect(deferred.settled).toBe(true);
    await expect(deferred.promise).rejects.toBe(reason);
  });

  test("keeps its first outcome, whatever follows", async () => {
    const resolved = new Deferred<number>();
    resolved.resolve(1);
    resolved.resolve(2);
    resolved.reject(new Error("late"));
    expect(await resolved.promise).toBe(1);

    const rejected = new Deferred<number>();
    rejected.reject(new Error("first"));
    rejected.resolve(1);
    await expect(rejected.promise).rejects.toThrow("first");
    expect(rejected.settled).toBe(true);
  });

  test("that is rejected while nobody waits does not end the process", async () => {
    const unhandled: unknown[] = [];
    const listener = (reason: unknown): void => {
      unhandled.push(reason);
    };
    process.on("unhandledRejection", listener);
    try {
      new Deferred().reject(new Error("nobody waits"));
      await setImmediate();
      await setImmediate();
      expect(unhandled).toEqual([]);
    } finally {
      process.off("unhandledRejection", listener);
    }
  });
});

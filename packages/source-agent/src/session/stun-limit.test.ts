import { expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { withinStun } from "./stun-limit.ts";

test("a dest that is not prepared a minute after the stun is given up", async () => {
  const clock = new ManualClock();
  const failures: string[] = [];
  const work = new Deferred();
  const done = withinStun(() => work.promise, { clock, fail: ({ code }) => failures.push(code) });
  clock.advance(59_999);
  expect(failures).toEqual([]);
  clock.advance(1);
  expect(failures).toEqual(["stun-time-limit"]);
  work.resolve();
  await done;
});

test.each([true, false])(
  "a stun that is over is not timed any more, ended well: %s",
  async (well) => {
    const clock = new ManualClock();
    const work = well ? Promise.resolve(7) : Promise.reject(new Error("no"));
    const done = withinStun(() => work, { clock, fail: () => expect.unreachable() });
    if (well) expect(await done).toBe(7);
    else await expect(done).rejects.toThrow("no");
    expect(clock.timerCount).toBe(0);
  },
);

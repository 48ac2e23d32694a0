import { beforeEach, expect, test } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { Standstill } from "./standstill.ts";

let clock: ManualClock;
let halts: number;
/** So many attempts fail. */
let failures: number;
let alive: boolean;
let stopped: Deferred;

beforeEach(() => {
  clock = new ManualClock();
  halts = 0;
  failures = 3;
  alive = true;
  stopped = new Deferred();
});

function standstill(): Standstill {
  return new Standstill({
    guest: {
      get alive() {
        return alive;
      },
    },
    qemu: {
      halt: () => {
        halts++;
        return halts <= failures ? Promise.reject(new Error("it runs on")) : Promise.resolve();
      },
    },
    ...{ clock, logger: createLogger({ role: "source", level: "silent" }) },
    isDue: () => true,
    stopped: stopped.promise,
  });
}

/** Lets everything that is due happen, for a minute. */
async function passMinute(): Promise<void> {
  for (let passed = 0; passed < 60_000; passed += 100) {
    clock.advance(100);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }
}

test("a guest that does not stop is stopped again until it was seen to stand still", async () => {
  await standstill().keep();
  expect(halts).toBe(1);
  await passMinute();
  expect(halts).toBe(4);
});

test("two who want it stopped at once do not take turns for ever", async () => {
  const still = standstill();
  failures = 4;
  await Promise.all([still.keep(), still.keep()]);
  await passMinute();
  expect(halts).toBe(5);
});

test.each([
  ["its QEMU is gone", () => (alive = false)],
  [
    "the agent stops",
    () => {
      stopped.resolve();
    },
  ],
])("nothing more is tried once %s", async (_what, end) => {
  failures = Number.POSITIVE_INFINITY;
  await standstill().keep();
  end();
  await passMinute();
  expect(halts).toBeLessThanOrEqual(2);
});

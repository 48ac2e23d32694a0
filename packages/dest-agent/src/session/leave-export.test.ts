import { expect, test } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import type { QmpClient } from "@vmferry/qemu";
import { leaveExport } from "./leave-export.ts";

interface Leaving {
  readonly told: (string | null)[];
  readonly closed: () => boolean;
  readonly left: Promise<void>;
  /** As often as that it is told to go on with the image alone. */
  readonly attempt: () => Promise<void>;
}

/** From a QEMU that does it at the given attempt, or lives until then. */
function leaving({ at, lives }: { readonly at: number; readonly lives: boolean }): Leaving {
  const clock = new ManualClock();
  const told: (string | null)[] = [];
  let attempts = 0;
  let isClosed = false;
  const exported = {
    leave: () => {
      attempts++;
      const refusal = new Error(`no, for the ${attempts}. time`);
      return attempts < at || !lives ? Promise.reject(refusal) : Promise.resolve();
    },
    close: () => {
      isClosed = true;
      return Promise.resolve();
    },
  };
  const left = leaveExport(
    {
      ...{ exported, disk: "disk0", clock },
      guest: { qmp: {} as unknown as QmpClient, isAlive: () => lives || attempts < at },
      logger: createLogger({ role: "dest", level: "silent" }),
      onSuspect: () => expect.unreachable(),
      onStuck: (reason) => told.push(reason),
    },
    {
      image: { kind: "file", path: "/images/a.raw" },
      unlock: () => Promise.resolve(),
      isSuspect: () => false,
    },
  );
  const turns = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  return {
    ...{ told, left },
    closed: () => isClosed,
    attempt: async () => {
      await turns();
      clock.advance(2000);
      await turns();
    },
  };
}

test("one refusal is not told", async () => {
  const { told, left, attempt } = leaving({ at: 2, lives: true });
  await attempt();
  await left;
  expect(told).toEqual([null]);
});

test("a QEMU that stays behind the agent is told of, and that it does not any more", async () => {
  const { told, left, attempt } = leaving({ at: 4, lives: true });
  for (let count = 1; count < 4; count++) await attempt();
  await left;
  expect(told).toEqual(["no, for the 2. time", "no, for the 3. time", null]);
});

test("a QEMU that is gone stays behind nothing", async () => {
  const { told, left, attempt, closed } = leaving({ at: 3, lives: false });
  for (let count = 1; count < 4; count++) await attempt();
  await left;
  expect(told.at(-1)).toBe(null);
  expect(closed()).toBe(true);
});

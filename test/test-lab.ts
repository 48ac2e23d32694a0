// The two agents that the tests of one file share, and the guests that each test boots for itself.

import { afterAll, afterEach, beforeAll } from "vitest";
import { assert } from "@vmferry/core";
import { FaultProxy, Lab, type LabOptions } from "@vmferry/testkit";
import { MovingGuest, type MovingGuestOptions } from "./moving-guest.ts";

const LOG_LINES = 60;

export interface TestLab {
  readonly lab: Lab;
  /** Ended after the test, wherever it is then. */
  boot(options?: MovingGuestOptions): Promise<MovingGuest>;
}

export interface ProxiedTestLab extends TestLab {
  /** Between the agents; made good again after each test. */
  readonly proxy: FaultProxy;
}

/** Registers the hooks of this file: agents for all of its tests, guests for each. */
export function useLab(options: () => LabOptions = () => ({})): TestLab {
  let opened: Lab | null = null;
  const guests: MovingGuest[] = [];
  beforeAll(async () => {
    opened = await Lab.open(options());
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail" && opened !== null) printLogs(opened);
    for (const guest of guests.splice(0)) await guest.end();
  });
  afterAll(async () => {
    await opened?.close();
  });
  return {
    get lab() {
      return present(opened);
    },
    boot: async (guestOptions) => {
      const guest = await MovingGuest.boot(present(opened), guestOptions);
      guests.push(guest);
      return guest;
    },
  };
}

/** The same with a fault proxy between the agents. */
export function useProxiedLab(options: LabOptions = {}): ProxiedTestLab {
  let proxy: FaultProxy | null = null;
  beforeAll(async () => {
    proxy = await FaultProxy.open();
  });
  afterAll(async () => {
    await proxy?.close();
  });
  const inner = useLab(() => ({ ...options, peerUrl: (port) => present(proxy).towards(port) }));
  afterEach(() => {
    present(proxy).restore();
    present(proxy).towards(inner.lab.dest.peerPort ?? 0);
  });
  return {
    get lab() {
      return inner.lab;
    },
    get proxy() {
      return present(proxy);
    },
    boot: (guestOptions) => inner.boot(guestOptions),
  };
}

/** Hooks make it before the first test asks for it. */
function present<T>(made: T | null): T {
  assert(made !== null, "the lab is open while tests run");
  return made;
}

function printLogs({ source, dest }: Lab): void {
  for (const agent of [source, dest]) {
    const lines = agent.logText.split("\n").slice(-LOG_LINES);
    console.error([`--- the ${agent.role} agent's log`, ...lines].join("\n"));
  }
}

// What is left of a hand-over whose agent stops: as the journal has it, and nothing said that was not seen.
import { beforeEach, describe, expect, test } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import type { ControlMessage } from "@vmferry/protocol";
import type { ContOutcome } from "../adapters/start-loaded.ts";
import { DestHandOver } from "./dest-hand-over.ts";

const stun = { migrationId: "m1", epoch: 8, generation: 1 };
const token: ControlMessage = { kind: "token", ...stun, incarnation: "s1" };
const refused = ["record refused", "discard", "send refused"];

/** In the order in which it happened: records, messages, what was done with the guest. */
let log: string[];
let clock: ManualClock;
let cont: () => Promise<ContOutcome>;
let isUnkillable: boolean;
let alive: boolean;
let exited: Deferred;
let word: "taken" | null;
let isStopped: boolean;
/** A message of the source. */
let hear: (message: ControlMessage) => void;

beforeEach(() => {
  log = [];
  clock = new ManualClock();
  cont = () => Promise.resolve({ kind: "running" });
  isUnkillable = false;
  alive = true;
  exited = new Deferred();
  word = "taken";
  isStopped = false;
});

/** Of a guest that has been prepared. */
function handOver(isWitnessed = false): DestHandOver {
  const note = (what: string): Promise<void> => {
    log.push(what);
    return Promise.resolve();
  };
  const holding = {
    exited: exited.promise,
    isAlive: () => alive,
    onResume: () => undefined,
    start: async () => {
      await note("cont");
      return cont();
    },
    keep: () => note("keep"),
    discard: async () => {
      await note("discard");
      if (isUnkillable) throw new Error("it does not die");
    },
    ...{ owned: () => undefined, inDoubt: () => undefined },
  };
  const ownership = new DestHandOver(
    {
      journal: { incarnation: "d1", append: ({ kind }) => note(`record ${kind}`) },
      ...{ clock, logger: createLogger({ role: "dest", level: "silent" }) },
      holding: () => holding,
      witness: {
        decide: () => (word === null ? Promise.reject(new Error("late")) : Promise.resolve(word)),
      },
      isWitnessed: () => isWitnessed,
      ...{ onStunned: () => undefined, onOther: () => undefined, onState: () => undefined },
      fetch: () => Promise.resolve(),
    },
    { stun, incarnation: "s1" },
    { phase: "prepared", stun, digest: "ab".repeat(32) },
  );
  ownership.attach({
    ...{ closed: new Promise(() => undefined), roundTripMs: 0 },
    listen: (listener) => {
      hear = listener;
    },
    send: ({ kind }) => log.push(`send ${kind}`),
    close: () => undefined,
  });
  ownership.watch(holding);
  return ownership;
}

function stop(ownership: DestHandOver): void {
  void ownership.stop().then(() => {
    isStopped = true;
  });
}

/** Lets everything that is due happen, for so long. */
async function pass(ms = 0): Promise<void> {
  for (let passed = 0; passed <= ms; passed += 100) {
    for (let turn = 0; turn < 30; turn++) await Promise.resolve();
    clock.advance(100);
  }
}

describe("an agent that stops", () => {
  test("leaves a guest that QEMU is told to start to its next life, and says nothing of it", async () => {
    const ownership = handOver();
    cont = () => Promise.resolve({ kind: "unknown", reason: "no" });
    hear(token);
    await pass(10_000);
    const before = [...log];
    stop(ownership);
    await pass();
    expect([isStopped, ownership.isLeft, ownership.state.phase]).toEqual([true, true, "taken"]);
    hear(token);
    alive = false;
    exited.resolve();
    await pass(60_000);
    expect(log).toEqual(before);
    expect(log).not.toContain("send taken");
  });

  test("does not wait for a monitor that does not answer `cont`", async () => {
    const ownership = handOver();
    cont = () => new Promise(() => undefined);
    hear(token);
    await pass();
    stop(ownership);
    await pass();
    expect([isStopped, ownership.isLeft, log]).toEqual([true, true, ["record taken", "cont"]]);
  });

  test("does not say REFUSED of a QEMU that is still there, whatever was asked meanwhile", async () => {
    const ownership = handOver();
    isUnkillable = true;
    ownership.fail(new Error("no"));
    await pass(5000);
    hear(token);
    stop(ownership);
    await pass();
    hear(token);
    await pass(60_000);
    expect([isStopped, ownership.isLeft]).toEqual([true, true]);
    expect(log).not.toContain("send refused");
    expect(ownership.stuckBecause).toEqual({ at: "end", reason: "it does not die" });
  });

  test("refuses what it still can, and waits for that", async () => {
    const ownership = handOver();
    ownership.fail(new Error("stopping"));
    stop(ownership);
    await pass();
    expect([isStopped, ownership.isLeft, log]).toEqual([true, false, refused]);
  });

  test("takes no guest any more that the witness gives it then", async () => {
    word = null;
    const ownership = handOver(true);
    hear(token);
    await pass(3000);
    stop(ownership);
    word = "taken";
    hear(token);
    await pass(5000);
    expect(ownership.state.phase).toBe("prepared");
    expect(log).not.toContain("record taken");
  });
});

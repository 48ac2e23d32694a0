/** A hand-over that stands still: what is shown, and who is asked. */
import { beforeEach, describe, expect, test } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import type { ControlMessage } from "@vmferry/protocol";
import type { ControlLink } from "./control-link.ts";
import {
  SourceHandOver,
  type AwaitAnswerOptions,
  type SourceHandOverPorts,
} from "./source-hand-over.ts";

const stun = { migrationId: "m1", epoch: 8, generation: 1 };
const answer = { ...stun, incarnation: "d1" };

/** In the order in which it happened. */
let log: string[];
let clock: ManualClock;
let word: "taken" | "revoked" | "late";
let reachable: boolean;
/** Of the link to the dest. */
let closed: Promise<Error>;

beforeEach(() => {
  log = [];
  clock = new ManualClock();
  word = "revoked";
  reachable = false;
  closed = Promise.resolve(new Error("lost"));
});

const waiting: AwaitAnswerOptions = {
  stopped: () => false,
  onLost: () => undefined,
  onOverdue: (known) => log.push(`overdue: ${known}`),
};

const witness = {
  decide: (): Promise<"taken" | "revoked"> => {
    log.push("ask the witness");
    return word === "late" ? Promise.reject(new Error("late")) : Promise.resolve(word);
  },
};

function handedOver(asked: ReturnType<SourceHandOverPorts["witness"]>): SourceHandOver {
  const note = (what: string) => (): Promise<void> => {
    log.push(what);
    return Promise.resolve();
  };
  const link = {
    closed,
    send: ({ kind }: ControlMessage) => log.push(`send ${kind}`),
    resume: () => {
      if (reachable) log.push("resume");
      return Promise.resolve(reachable);
    },
  };
  const nothing = (): undefined => undefined;
  return new SourceHandOver(
    {
      guest: {
        ...{ name: "web1", epoch: 7, alive: true, end: note("end") },
        ...{ owned: nothing, handedOff: nothing, inDoubt: nothing },
      },
      qemu: {
        ...{ resume: note("resume QEMU"), cont: note("cont"), halt: note("halt") },
        onEvent: () => nothing,
      },
      journal: { incarnation: "s1", append: ({ kind }) => note(`record ${kind}`)() },
      ...{ peer: "host-b", clock, logger: createLogger({ role: "source", level: "silent" }) },
      link: () => link as unknown as ControlLink,
      ...{
        failure: () => null,
        giveBack: () => note("give back")().then(() => "nothing" as const),
        witness: () => asked,
      },
      onBack: ({ code }) => log.push(`back: ${code}`),
      lacks: () => Promise.resolve(null),
      ...{ forwardShut: nothing, onState: nothing, onFailed: nothing },
    },
    { phase: "handed-off", stun, incarnation: "d1" },
  );
}

/** Lets everything that is due happen, for so long. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    clock.advance(100);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }
}

describe("a source whose dest does not answer", () => {
  const asking = (): SourceHandOver => {
    const ownership = handedOver(witness);
    void ownership.awaitAnswer(waiting);
    return ownership;
  };
  const links = {
    "cannot be asked": { isReachable: false, isOpen: false },
    "is asked again and again": { isReachable: true, isOpen: false },
    "has a link that is up": { isReachable: true, isOpen: true },
  };

  test.each(Object.entries(links))(
    "asks the witness after a while, and takes the guest back by its word: it %s",
    async (_how, { isReachable, isOpen }) => {
      reachable = isReachable;
      if (isOpen) closed = new Promise(() => undefined);
      const ownership = asking();
      await pass(9000);
      expect(log).not.toContain("overdue");
      await pass(10_000);
      expect(ownership.state.phase).toBe("owner");
      expect(log.filter((what) => what !== "resume" && what !== "send token")).toEqual([
        ...["overdue: null", "ask the witness", "back: settled-by-witness"],
        ...["record reclaimed", "give back", "cont"],
      ]);
    },
  );

  test("is in doubt without a witness, too", async () => {
    closed = new Promise(() => undefined);
    const ownership = handedOver(null);
    void ownership.awaitAnswer(waiting);
    await pass(11_000);
    expect([log, ownership.state.phase]).toEqual([["overdue: null"], "handed-off"]);
  });

  test.each(["taken", "complete"] as const)(
    "is not in doubt any more behind its word: %s",
    async (kind) => {
      closed = new Promise(() => undefined);
      const ownership = asking();
      ownership.answered({ kind: "taken", ...answer });
      if (kind === "complete") ownership.answered({ kind, ...answer });
      await pass(60_000);
      expect(log.filter((what) => what.startsWith("overdue"))).toEqual([]);
      expect(log).not.toContain("ask the witness");
    },
  );

  test.each(["taken", "late"] as const)("waits on where the witness says: %s", async (answered) => {
    word = answered;
    const ownership = asking();
    await pass(60_000);
    const known = word === "taken" ? "overdue: taken" : "overdue: null";
    expect(new Set(log)).toEqual(new Set(["overdue: null", "ask the witness", known]));
    expect(ownership.state.phase).toBe("handed-off");
  });
});

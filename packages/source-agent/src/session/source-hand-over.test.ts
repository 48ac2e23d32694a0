import { beforeEach, describe, expect, test } from "vitest";
import {
  createLogger,
  JournalError,
  ManualClock,
  type GivenBack,
  type JournalRecordOf,
} from "@vmferry/agent";
import type { ControlMessage, SourceOwnership } from "@vmferry/protocol";
import type { QmpEvent } from "@vmferry/qemu";
import type { ControlLink } from "./control-link.ts";
import {
  SourceHandOver,
  type AwaitAnswerOptions,
  type SourceHandOverPorts,
} from "./source-hand-over.ts";

const stun = { migrationId: "m1", epoch: 8, generation: 1 };
const shutting: SourceOwnership = {
  ...{ phase: "shutting", stun, digest: "ab".repeat(32), incarnation: "d1" },
};
const handedOff: SourceOwnership = { phase: "handed-off", stun, incarnation: "d1" };
const answer = { ...stun, incarnation: "d1" };

/** In the order in which it happened: records, messages, what was done with QEMU. */
let log: string[];
let clock: ManualClock;
let journalFails: JournalError | null;
let word: "taken" | "revoked" | "late";
let reachable: boolean;
let raise: (event: QmpEvent) => void;
/** What of the guest is here alone. */
let lacking: string | null;

beforeEach(() => {
  log = [];
  clock = new ManualClock();
  journalFails = null;
  word = "revoked";
  reachable = false;
  lacking = null;
});

function failed(recorded: "no" | "unknown"): JournalError {
  return new JournalError("no", { code: "journal-failed", path: "j", recorded });
}

function handOver(
  initial: SourceOwnership,
  changes: Partial<SourceHandOverPorts> = {},
): SourceHandOver {
  const note = (what: string) => (): Promise<void> => {
    log.push(what);
    return Promise.resolve();
  };
  const link = {
    closed: Promise.resolve(new Error("lost")),
    send: ({ kind }: ControlMessage) => log.push(`send ${kind}`),
    resume: () => {
      if (reachable) log.push("resume");
      return Promise.resolve(reachable);
    },
  };
  return new SourceHandOver(
    {
      guest: {
        ...{ name: "web1", epoch: 7, alive: true, end: note("end") },
        owned: () => undefined,
        handedOff: () => undefined,
        inDoubt: () => undefined,
      },
      qemu: {
        ...{ resume: note("resume QEMU"), cont: note("cont"), halt: note("halt") },
        onEvent: (listener) => {
          raise = listener;
          return () => undefined;
        },
      },
      journal: {
        incarnation: "s1",
        append: ({ kind }: JournalRecordOf<"source">) => {
          if (journalFails !== null) return Promise.reject(journalFails);
          return note(`record ${kind}`)();
        },
      },
      ...{ peer: "host-b", clock, logger: createLogger({ role: "source", level: "silent" }) },
      link: () => link as unknown as ControlLink,
      failure: () => null,
      giveBack: () => note("give back")().then(() => "nothing"),
      forwardShut: () => undefined,
      witness: () => null,
      onBack: ({ code }) => log.push(`back: ${code}`),
      lacks: () => Promise.resolve(lacking),
      onState: () => undefined,
      onFailed: () => undefined,
      ...changes,
    },
    initial,
  );
}

const witness = {
  decide: (): Promise<"taken" | "revoked"> => {
    log.push("ask the witness");
    return word === "late" ? Promise.reject(new Error("late")) : Promise.resolve(word);
  },
};

const waiting: AwaitAnswerOptions = {
  stopped: () => false,
  onLost: () => undefined,
  onOverdue: (known) => log.push(`overdue: ${known}`),
};

/** Lets everything that is due happen, for so long. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    clock.advance(100);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }
}

describe("a hand-over whose record", () => {
  test("is durable goes on with the token", async () => {
    const ownership = handOver(shutting);
    await ownership.apply({ kind: "postmigrate" });
    expect(log).toEqual(["record handed-off", "send token"]);
  });

  test("was evidently not written has not happened, and can be rolled back", async () => {
    const ownership = handOver(shutting);
    journalFails = failed("no");
    await expect(ownership.apply({ kind: "postmigrate" })).rejects.toThrow();
    expect(ownership.state).toEqual(shutting);
    await ownership.apply({ kind: "failed" });
    await ownership.until("owner");
    expect(log).toEqual(["send abort", "give back", "resume QEMU"]);
  });

  test("may be found later or not ends everything: neither token nor roll-back", async () => {
    const ownership = handOver(shutting);
    journalFails = failed("unknown");
    await expect(ownership.apply({ kind: "postmigrate" })).rejects.toThrow();
    journalFails = null;
    await expect(ownership.apply({ kind: "failed" })).rejects.toThrow();
    await expect(ownership.settle("source")).rejects.toMatchObject({ code: "not-in-doubt" });
    expect([log, ownership.isHalted]).toEqual([[], true]);
  });

  test("of a refusal cannot be written leaves the guest where it stands", async () => {
    const ownership = handOver(handedOff);
    journalFails = failed("no");
    ownership.answered({ kind: "refused", ...answer, code: "peer-lost", text: "" });
    await ownership.idle();
    expect([log, ownership.isHalted]).toEqual([[], true]);
  });
});

describe("a guest that was handed over", () => {
  test.each(["handed-off", "released"] as const)(
    "and is started by hand is stopped: %s",
    async (phase) => {
      handOver({ phase, stun, incarnation: "d1" });
      raise({ name: "RESUME" } as QmpEvent);
      await pass(100);
      expect(log).toEqual(["halt"]);
    },
  );

  test("is not stopped any more once it is to run here", async () => {
    const qemu = {
      ...{ resume: () => Promise.resolve(), cont: () => Promise.resolve() },
      halt: () => {
        log.push("halt");
        return Promise.reject(new Error("it runs on"));
      },
      onEvent: (listener: typeof raise) => {
        raise = listener;
        return () => undefined;
      },
    };
    const ownership = handOver(handedOff, { qemu });
    raise({ name: "RESUME" } as QmpEvent);
    await pass(1000);
    ownership.answered({ kind: "refused", ...answer, code: "peer-lost", text: "" });
    await ownership.until("owner");
    log.length = 0;
    await pass(60_000);
    expect(log).toEqual([]);
  });

  test("and is started because the dest refused it runs", async () => {
    const ownership = handOver(handedOff);
    ownership.answered({ kind: "refused", ...answer, code: "peer-lost", text: "" });
    await ownership.until("owner");
    raise({ name: "RESUME" } as QmpEvent);
    await pass(100);
    expect(log).toEqual(["record reclaimed", "give back", "cont"]);
  });

  test("is asked for until the dest answers, and no time brings it back", async () => {
    const ownership = handOver(handedOff);
    void ownership.awaitAnswer(waiting);
    await pass(3_600_000);
    expect(new Set(log)).toEqual(new Set(["overdue: null"]));
    expect(ownership.state.phase).toBe("handed-off");
    log.length = 0;
    reachable = true;
    await pass(5000);
    expect(log).toEqual(expect.arrayContaining(["resume", "send token"]));
  }, 30_000);
});

describe("a guest that is started by hand before TOKEN is out stays", () => {
  test("and is rolled back while QEMU's postmigrate is not recorded", async () => {
    const failures: unknown[] = [];
    const ownership = handOver(shutting, { onFailed: (error) => failures.push(error) });
    raise({ name: "RESUME" } as QmpEvent);
    await ownership.until("owner");
    expect(log).toEqual(["send abort", "give back", "resume QEMU", "record kept"]);
    expect(failures).toMatchObject([{ detail: { code: "source-qemu-failed" } }]);
    await ownership.apply({ kind: "prepared", ...{ stun, incarnation: "d1", digest: "" } });
    expect(log).not.toContain("send token");
  });

  test("and comes back where the hand-over is being recorded", async () => {
    const ownership = handOver(shutting, {
      journal: {
        incarnation: "s1",
        append: ({ kind }) => {
          log.push(`record ${kind}`);
          if (kind === "handed-off") raise({ name: "RESUME" } as QmpEvent);
          return Promise.resolve();
        },
      },
    });
    await ownership.apply({ kind: "postmigrate" });
    await ownership.until("owner");
    expect(ownership.state).toEqual({ phase: "owner", epoch: 9 });
    expect(log).toEqual([
      ...["record handed-off", "halt", "back: source-qemu-failed"],
      ...["record reclaimed", "send abort", "give back", "cont"],
    ]);
  });

  test("and comes back once where the hand-over was begun already", async () => {
    const failures: unknown[] = [];
    const ownership = handOver(shutting, { onFailed: (error) => failures.push(error) });
    const handedOver = ownership.apply({ kind: "postmigrate" });
    raise({ name: "RESUME" } as QmpEvent);
    await handedOver;
    await ownership.until("owner");
    await ownership.idle();
    expect(log).toEqual([
      ...["record handed-off", "back: source-qemu-failed"],
      ...["record reclaimed", "send abort", "give back", "cont"],
    ]);
    expect(failures).toHaveLength(1);
  });

  test("but not where an earlier life may have sent TOKEN", async () => {
    const ownership = handOver(handedOff);
    raise({ name: "RESUME" } as QmpEvent);
    await ownership.apply({ kind: "failed" });
    expect([log, ownership.state.phase]).toEqual([["halt", "send token"], "handed-off"]);
  });
});

describe("a guest that is to run here again", () => {
  const rollingBack: SourceOwnership = { phase: "rolling-back", stun };
  const actions = [{ do: "send-abort", stun }, { do: "roll-back" }] as const;
  let fails: Error | null;
  let alive: boolean;
  let given: GivenBack;
  let seen: (string | null)[];
  let ownership: SourceHandOver;
  const again = (): Promise<void> => {
    [fails, given] = [new Error("image-locked"), "given"];
    alive = true;
    seen = [];
    ownership = handOver(rollingBack, {
      guest: {
        ...{ name: "web1", epoch: 7, end: () => Promise.resolve(), owned: () => undefined },
        ...{ handedOff: () => undefined, inDoubt: () => undefined },
        get alive() {
          return alive;
        },
      },
      giveBack: () => {
        log.push("give back");
        return fails === null ? Promise.resolve(given) : Promise.reject(fails);
      },
      onState: () => seen.push(ownership.stuckBecause),
    });
    return ownership.perform(actions);
  };

  test("is tried again until it was seen running, and only then recorded as kept", async () => {
    void again();
    await pass(60_000);
    expect(log).not.toContain("record kept");
    expect(log.filter((what) => what === "give back").length).toBeGreaterThan(5);
    expect([ownership.state.phase, seen.at(-1)]).toEqual(["rolling-back", "image-locked"]);
    await expect(ownership.settle("source")).rejects.toThrow("image-locked");
    fails = null;
    await pass(12_000);
    expect(log.slice(-3)).toEqual(["give back", "resume QEMU", "record kept"]);
    expect([ownership.state.phase, ownership.stuckBecause]).toEqual(["owner", null]);
  });

  test("stays stopped where an image may have lost something, and is recorded as kept", async () => {
    void again();
    [fails, given] = [null, "suspect"];
    await pass(1000);
    expect(log).toEqual(["send abort", "give back", "record kept"]);
    expect(ownership.stuckBecause).toBe(null);
  });

  test("is the source's when its QEMU is gone", async () => {
    void again();
    await pass(1000);
    alive = false;
    await pass(12_000);
    expect([ownership.state.phase, log.at(-1)]).toEqual(["owner", "record kept"]);
  });

  test("is left to the next life when the agent stops, with nothing recorded", async () => {
    void again();
    await pass(1000);
    ownership.stop();
    await ownership.leftOpen;
    await ownership.idle();
    expect(log).not.toContain("record kept");
    expect(ownership.state.phase).toBe("rolling-back");
  });
});

describe("a person", () => {
  test("who gives the guest to the source brings it back", async () => {
    const ownership = handOver(handedOff);
    await ownership.settle("source");
    await ownership.until("owner");
    expect(ownership.state).toEqual({ phase: "owner", epoch: 9 });
    expect(log).toEqual(["record reclaimed", "give back", "cont"]);
  });

  test("who gives the guest to the dest ends it here", async () => {
    await handOver(handedOff).settle("dest");
    expect(log).toEqual(["record done", "end"]);
  });

  test.each([
    [handedOff, ["record released"]],
    [{ phase: "unclear", stun, incarnation: "d1" }, ["record released", "send token"]],
  ] as const)(
    "who gives the dest a guest that something follows lets go of nothing: $0.phase",
    async (state, done) => {
      lacking = "1 MiB";
      const ownership = handOver(state);
      await ownership.settle("dest");
      expect(ownership.state.phase).toBe("released");
      expect(log).toEqual(done);
      await expect(ownership.settle("dest")).rejects.toMatchObject({
        ...{ code: "not-in-doubt", message: "1 MiB" },
      });
      expect(log).toEqual(done);
      ownership.answered({ kind: "complete", ...answer });
      await ownership.until("done");
      await ownership.idle();
      expect(log.slice(done.length)).toEqual(["record done", "end"]);
    },
  );

  test("may let go of a guest that the dest has and that nothing follows", async () => {
    await handOver({ phase: "released", stun, incarnation: "d1" }).settle("dest");
    expect(log).toEqual(["record done", "end"]);
  });

  test("is not believed against the witness", async () => {
    word = "taken";
    const ownership = handOver(handedOff, { witness: () => witness });
    await expect(ownership.settle("source")).rejects.toMatchObject({ code: "not-in-doubt" });
    expect([log, ownership.state.phase]).toEqual([["ask the witness"], "handed-off"]);
  });

  test.each([
    ["taken", ["ask the witness"], "unclear"],
    ["late", ["ask the witness", "give back", "cont"], "owner"],
    ["revoked", ["ask the witness", "give back", "cont"], "owner"],
  ] as const)(
    "is heard where nothing is clear, but not against it: %s",
    async (said, done, phase) => {
      word = said;
      const ownership = handOver(
        { phase: "unclear", stun, incarnation: "d1" },
        { witness: () => witness },
      );
      const settled = ownership.settle("source");
      if (said === "taken") await expect(settled).rejects.toMatchObject({ code: "not-in-doubt" });
      else await settled;
      await pass(500);
      expect([log.filter((what) => !what.startsWith("record")), ownership.state.phase]).toEqual([
        done,
        phase,
      ]);
    },
  );

  test.each([
    ["before the hand-over", shutting, "source"],
    ["once the dest has taken it", { phase: "released", stun, incarnation: "d1" }, "source"],
    ["when all is over", { phase: "done", epoch: 8 }, "dest"],
  ] as const)("has nothing to say %s", async (_when, state, owner) => {
    const settled = handOver(state).settle(owner);
    await expect(settled).rejects.toMatchObject({ code: "not-in-doubt" });
    expect(log).toEqual([]);
  });
});

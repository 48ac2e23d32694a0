import { beforeEach, describe, expect, test } from "vitest";
import {
  createLogger,
  JournalError,
  ManualClock,
  PeerError,
  type Channel,
  type JournalRecordOf,
} from "@vmferry/agent";
import type { ControlMessage, DestOwnership } from "@vmferry/protocol";
import { Deferred } from "@vmferry/core";
import type { ContOutcome } from "../adapters/start-loaded.ts";
import { DestHandOver } from "./dest-hand-over.ts";
import type { Stuck } from "./doubt-text.ts";

const stun = { migrationId: "m1", epoch: 8, generation: 1 };
const prepared: DestOwnership = { phase: "prepared", stun, digest: "ab".repeat(32) };
const about = { ...stun, incarnation: "s1" };
const token: ControlMessage = { kind: "token", ...about };

/** In the order in which it happened: records, messages, what was done with the guest. */
let log: string[];
let clock: ManualClock;
let journalFails: boolean;
let outcomes: ContOutcome[];
let alive: boolean;
let exited: Deferred;
let startedByHand: () => void;
let lacking: string | null;
let word: "taken" | "revoked" | "late";
/** A message of the source. */
let hear: (message: ControlMessage) => void;
let closed: Deferred<Error>;
/** How often its QEMU is still there after it was ended. */
let unkillable: number;
/** What stood in the way whenever something changed. */
let shown: (Stuck | null)[];

beforeEach(() => {
  log = [];
  clock = new ManualClock();
  journalFails = false;
  outcomes = [];
  alive = true;
  exited = new Deferred();
  word = "taken";
  lacking = null;
  unkillable = 0;
  shown = [];
});

function channel(): Channel {
  closed = new Deferred();
  return {
    closed: closed.promise,
    roundTripMs: 0,
    listen: (listener) => {
      hear = listener;
    },
    next: () => Promise.reject(new Error("nobody asks")),
    send: ({ kind }) => log.push(`send ${kind}`),
    close: () => log.push("close"),
  };
}

function handOver(initial: DestOwnership, isWitnessed = false): DestHandOver {
  const note = (what: string): Promise<void> => {
    log.push(what);
    return Promise.resolve();
  };
  const holding = {
    exited: exited.promise,
    isAlive: () => alive,
    onResume: (listener: () => void) => {
      startedByHand = listener;
    },
    start: async (): Promise<ContOutcome> => {
      await note("cont");
      return outcomes.shift() ?? { kind: "running" };
    },
    keep: () => note("keep"),
    discard: async () => {
      await note("discard");
      if (unkillable-- > 0) throw new Error("it does not die");
    },
    owned: () => log.push("owned"),
    inDoubt: () => log.push("in doubt"),
  };
  const ownership: DestHandOver = new DestHandOver(
    {
      journal: {
        incarnation: "d1",
        append: ({ kind }: JournalRecordOf<"dest">) => {
          if (!journalFails) return note(`record ${kind}`);
          const detail = { code: "journal-failed", path: "j", recorded: "unknown" } as const;
          return Promise.reject(new JournalError("no", detail));
        },
      },
      ...{ clock, logger: createLogger({ role: "dest", level: "silent" }) },
      holding: () => holding,
      witness: {
        decide: async () => {
          await note("ask the witness");
          if (word === "late") throw new Error("late");
          return word;
        },
      },
      isWitnessed: () => isWitnessed,
      ...{ onStunned: () => undefined, onOther: () => undefined },
      onState: () => shown.push(ownership.stuckBecause),
      fetch: () => Promise.resolve(),
      lacks: () => lacking,
    },
    { stun, incarnation: "s1" },
    initial,
  );
  ownership.attach(channel());
  ownership.watch(holding);
  return ownership;
}

/** Lets everything that is due happen, for so long. */
async function pass(ms = 0): Promise<void> {
  for (let passed = 0; passed <= ms; passed += 100) {
    for (let turn = 0; turn < 30; turn++) await Promise.resolve();
    clock.advance(100);
  }
}

const taken = ["record taken", "cont", "owned", "send taken", "send running"];
const owned = [...taken, "record complete", "keep", "send complete"];
const refused = ["record refused", "discard", "send refused"];

describe("a prepared guest", () => {
  test("is taken by its token, recorded first", async () => {
    const ownership = handOver(prepared);
    hear(token);
    await pass();
    expect([log, ownership.state.phase]).toEqual([owned, "owner"]);
  });

  test("waits a minute for a source whose link was lost, and is refused then", async () => {
    const ownership = handOver(prepared);
    closed.resolve(new PeerError("lost", { code: "peer-lost", closeCode: null }));
    await pass(59_000);
    expect(log).toEqual([]);
    await pass(2000);
    expect([log, ownership.failure.code]).toEqual([refused, "peer-lost"]);
  });

  test("stays when the source is back in time", async () => {
    const ownership = handOver(prepared);
    closed.resolve(new PeerError("lost", { code: "peer-lost", closeCode: null }));
    await pass(50_000);
    ownership.attach(channel());
    await pass(20_000);
    expect([log, ownership.state.phase]).toEqual([["close"], "prepared"]);
  });

  test("that somebody starts by hand is refused", async () => {
    const ownership = handOver(prepared);
    startedByHand();
    await pass();
    expect([log, ownership.failure.code]).toEqual([refused, "dest-qemu-failed"]);
  });

  test("whose QEMU does not end when it is refused is in doubt until it does", async () => {
    const ownership = handOver(prepared);
    unkillable = 3;
    ownership.fail(new Error("no"));
    await pass(1000);
    expect(ownership.stuckBecause).toEqual({ at: "end", reason: "it does not die" });
    expect(shown).toContainEqual({ at: "end", reason: "it does not die" });
    expect(log).not.toContain("send refused");
    await pass(8000);
    expect(log.slice(-2)).toEqual(["discard", "send refused"]);
    expect(ownership.stuckBecause).toBeNull();
  });

  test("whose QEMU does not end is ended again less and less often, and at once when it is gone", async () => {
    const ownership = handOver(prepared);
    unkillable = Infinity;
    ownership.fail(new Error("no"));
    await pass(600_000);
    const attempts = log.filter((what) => what === "discard").length;
    expect(attempts).toBeGreaterThan(15);
    expect(attempts).toBeLessThan(30);
    unkillable = 0;
    alive = false;
    exited.resolve();
    await pass();
    expect(log.slice(-2)).toEqual(["discard", "send refused"]);
  });

  test("is refused when its QEMU dies", async () => {
    const ownership = handOver(prepared);
    exited.resolve();
    await pass();
    expect([log, ownership.failure.code]).toEqual([refused, "dest-qemu-died"]);
  });
});

describe("a guest that is taken", () => {
  test("is refused when its QEMU was dead before it was told to start", async () => {
    const ownership = handOver(prepared);
    alive = false;
    hear(token);
    await pass();
    exited.resolve();
    await pass();
    expect([log, ownership.state.phase]).toEqual([["record taken", ...refused], "refused"]);
  });

  test("is refused when its QEMU dies before it could be told to start", async () => {
    const ownership = handOver(prepared);
    outcomes = [{ kind: "not-told", reason: "no answer" }];
    hear(token);
    await pass();
    alive = false;
    exited.resolve();
    await pass();
    expect([log.slice(-3), ownership.state.phase]).toEqual([refused, "refused"]);
    expect(ownership.failure.code).toBe("dest-qemu-died");
  });

  test("is never refused when its QEMU stayed although its monitor was lost: a person may have started it", async () => {
    const ownership = handOver(prepared);
    outcomes = Array.from({ length: 40 }, () => ({ kind: "not-told", reason: "no" }) as const);
    hear(token);
    await pass(60_000);
    expect(ownership.stuckBecause?.reason).toBe("no");
    alive = false;
    exited.resolve();
    await pass(1000);
    expect([log.at(-1), ownership.state.phase]).toEqual(["send taken", "down"]);
  });

  test("is refused when QEMU says no and still stands as it was loaded", async () => {
    handOver(prepared);
    outcomes = [{ kind: "stands-still", reason: "no" }];
    hear(token);
    await pass();
    expect(log).toEqual(["record taken", "cont", ...refused]);
  });

  test("is never refused when it may have run", async () => {
    const ownership = handOver(prepared);
    const unknown: ContOutcome = { kind: "unknown", reason: "no answer" };
    outcomes = [unknown, { kind: "stands-still", reason: "no" }, unknown];
    hear(token);
    await pass(10_000);
    expect(log).not.toContain("record refused");
    expect([log.slice(-3), ownership.state.phase]).toEqual([owned.slice(-3), "owner"]);
  });

  test("is told to start for as long as its QEMU lives, and shown as in doubt meanwhile", async () => {
    const ownership = handOver(prepared);
    outcomes = Array.from(
      { length: 40 },
      () => ({ kind: "unknown", reason: "no answer" }) as const,
    );
    hear(token);
    await pass(600_000);
    const stuck = { at: "start", reason: "no answer" };
    expect([ownership.state.phase, ownership.stuckBecause]).toEqual(["taken", stuck]);
    expect(log).not.toContain("send taken");
    await expect(ownership.settle("dest")).rejects.toThrow("no answer");
    await pass(1_200_000);
    expect([log.slice(-3), ownership.state.phase]).toEqual([owned.slice(-3), "owner"]);
    expect(ownership.stuckBecause).toBeNull();
  });

  test("and does not run is the dest's as soon as a person has started it", async () => {
    const ownership = handOver({ phase: "down", stun });
    startedByHand();
    await pass();
    expect([log.slice(-3), ownership.state.phase]).toEqual([owned.slice(-3), "owner"]);
  });

  test("whose QEMU dies afterwards is the dest's, for a person to start", async () => {
    const ownership = handOver(prepared);
    outcomes = [{ kind: "unknown", reason: "no answer" }];
    hear(token);
    await pass();
    alive = false;
    exited.resolve();
    await pass(2000);
    expect([log.at(-1), ownership.state.phase]).toEqual(["send taken", "down"]);
    await expect(ownership.settle("source")).rejects.toMatchObject({ code: "not-in-doubt" });
    await ownership.settle("dest");
    expect(log.slice(-3)).toEqual(["record complete", "keep", "send complete"]);
  });

  test("and is down is not let go of by its source while that has some of its disks", async () => {
    const ownership = handOver({ phase: "down", stun });
    lacking = "a part of its disks is at the source";
    await expect(ownership.settle("dest")).rejects.toThrow(lacking);
    expect([log, ownership.state.phase]).toEqual([[], "down"]);
    lacking = null;
    await ownership.settle("dest");
    expect(ownership.state.phase).toBe("owner");
  });

  test("stands still when that cannot be recorded, and no token helps", async () => {
    const ownership = handOver(prepared);
    journalFails = true;
    hear(token);
    await pass();
    journalFails = false;
    hear(token);
    ownership.fail(new Error("late"));
    await pass();
    expect([log, ownership.isHalted]).toEqual([[], true]);
  });
});

describe("with a witness", () => {
  test("the guest is taken by its word", async () => {
    handOver(prepared, true);
    hear(token);
    await pass();
    expect(log).toEqual(["ask the witness", ...owned]);
  });

  test("a guest that the source took back is refused", async () => {
    word = "revoked";
    const ownership = handOver(prepared, true);
    hear(token);
    await pass();
    expect(log).toEqual(["ask the witness", ...refused]);
    expect(ownership.failure.code).toBe("settled-by-witness");
  });

  test("a witness that does not answer is asked until it does", async () => {
    word = "late";
    const ownership = handOver(prepared, true);
    hear(token);
    await pass(3000);
    expect(ownership.state.phase).toBe("prepared");
    word = "taken";
    await pass(2000);
    expect(ownership.state.phase).toBe("owner");
  });

  test("a guest of which it has no word is in doubt, and it is asked for one token alone", async () => {
    word = "late";
    const ownership = handOver(prepared, true);
    for (let tokens = 0; tokens < 5; tokens++) hear(token);
    await pass();
    expect(ownership.stuckBecause).toEqual({ at: "claim", reason: "late" });
    expect(shown).toContainEqual({ at: "claim", reason: "late" });
    await pass(10_000);
    expect(log.filter((what) => what === "ask the witness").length).toBeLessThan(13);
    await expect(ownership.settle("source")).resolves.toBeUndefined();
    await pass(2000);
    expect([ownership.state.phase, ownership.stuckBecause]).toEqual(["refused", null]);
    expect(log.slice(-3)).toEqual(refused);
  });

  test("a guest that was given late is taken once, and is not in doubt any more", async () => {
    word = "late";
    const ownership = handOver(prepared, true);
    hear(token);
    await pass(3000);
    word = "taken";
    hear(token);
    await pass(2000);
    expect(log.filter((what) => what !== "ask the witness")).toEqual(owned);
    expect(ownership.stuckBecause).toBeNull();
  });

  test("a person is not believed against it", async () => {
    word = "revoked";
    const ownership = handOver(prepared, true);
    await expect(ownership.settle("dest")).rejects.toMatchObject({ code: "not-in-doubt" });
    expect(log).not.toContain("cont");
  });

  test("nor where nothing is clear", async () => {
    word = "revoked";
    const ownership = handOver({ phase: "unclear", stun }, true);
    await expect(ownership.settle("dest")).rejects.toMatchObject({ code: "not-in-doubt" });
    expect([log, ownership.state.phase]).toEqual([["ask the witness"], "unclear"]);
  });
});

test.each([
  [{}, true],
  [{ migrationId: "m2" }, false],
  [{ epoch: 9 }, false],
  [{ generation: 2 }, false],
  [{ incarnation: "s2" }, false],
  [{ incarnation: "" }, false],
])("a hand-over goes on with the source that began it: %o", (change, expected) => {
  expect(handOver(prepared).belongsTo({ ...about, ...change })).toBe(expected);
});

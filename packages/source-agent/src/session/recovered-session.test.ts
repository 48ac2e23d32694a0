import { beforeEach, expect, test } from "vitest";
import {
  createLogger,
  EventHub,
  ManualClock,
  MigrationStore,
  type GivenBack,
} from "@vmferry/agent";
import type { SourceOwnership, SourceStep } from "@vmferry/protocol";
import { RecoveredSession, type LeftDisksRest, type LeftRest } from "./recovered-session.ts";

const stun = { migrationId: "m1", epoch: 2, generation: 1 };

/** How often memory or disks that follow the guest were removed. */
let discarded: number;
/** How often the dest was called. */
let dials: number;
beforeEach(() => {
  dials = 0;
  discarded = 0;
});

interface Recovered {
  readonly session: RecoveredSession;
  readonly store: MigrationStore;
  readonly records: string[];
  readonly clock: ManualClock;
}

function recovered(
  state: SourceOwnership,
  actions: SourceStep["actions"],
  options: {
    readonly alive?: boolean;
    readonly bringBack?: () => Promise<GivenBack>;
    readonly diskRest?: LeftDisksRest | null;
    readonly serveDisks?: () => Promise<LeftDisksRest | null>;
    readonly halt?: () => Promise<void>;
    /** Memory that an earlier life has stored. */
    readonly serveMemory?: () => Promise<LeftRest | null>;
    readonly peerRefusal?: string;
  } = {},
): Recovered {
  const { alive = true, bringBack = () => Promise.resolve("nothing"), diskRest = null } = options;
  const { serveDisks = () => Promise.resolve(diskRest), serveMemory } = options;
  const clock = new ManualClock();
  const store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  const records: string[] = [];
  const nothing = (): Promise<void> => Promise.resolve();
  const discard = (): Promise<void> => {
    discarded++;
    return Promise.resolve();
  };
  const session = new RecoveredSession(
    {
      guest: {
        ...{ name: "web1", epoch: 1, alive, busyWith: null, end: nothing },
        ...{ owned: () => undefined, handedOff: () => undefined, inDoubt: () => undefined },
      },
      qemu: {
        ...{ resume: nothing, cont: nothing, halt: options.halt ?? nothing },
        onEvent: () => () => undefined,
      },
      journal: {
        incarnation: "s1",
        append: ({ kind }) => {
          records.push(kind);
          return Promise.resolve();
        },
      },
      closeJournal: nothing,
      ...{ peer: "host-b", peerRefusal: options.peerRefusal ?? null },
      witness: () => null,
      bringBack,
      markLeft: nothing,
      rest: {
        ...{ exists: () => Promise.resolve(serveMemory !== undefined), discard },
        serve: serveMemory ?? (() => Promise.resolve(null)),
      },
      leftDisks: {
        ...{ exists: () => Promise.resolve(diskRest !== null), discard },
        serve: serveDisks,
      },
      ...{ store, clock, logger: createLogger({ role: "source", level: "silent" }) },
      dialer: {
        control: () => {
          dials++;
          return Promise.reject(new Error("nobody answers"));
        },
      },
      identity: { software: "test", incarnation: "p1" },
    },
    stun,
    { state, actions },
  );
  return { session, store, records, clock };
}

test.each([
  ["nobody has settled", { phase: "unclear", stun, incarnation: "d1" } as const, []],
  ["is not answered", { phase: "handed-off", stun, incarnation: "d1" } as const, []],
])("an agent that stops does not wait for what %s", async (_what, state, actions) => {
  const { session, store } = recovered(state, actions);
  const ended = session.run();
  session.stop();
  await ended;
  expect(store.get("m1").phase).toBe("in-doubt");
});

test("a guest that is not seen running again is in doubt, and not recorded as kept", async () => {
  const { session, store, records } = recovered(
    { phase: "rolling-back", stun },
    [{ do: "roll-back" }],
    { bringBack: () => Promise.reject(new Error("the image is locked")) },
  );
  const ended = session.run();
  await expect.poll(() => store.get("m1").phase).toBe("in-doubt");
  expect(store.get("m1").error?.detail).toContain("the image is locked");
  await expect(session.settle("source")).rejects.toThrow("the image is locked");
  session.stop();
  await ended;
  expect([records, store.get("m1").phase]).toEqual([[], "in-doubt"]);
});

test.each([
  [true, "the guest stayed"],
  [false, "QEMU is gone as well"],
])(
  "what is told of an attempt that ended says what became of the guest: %s",
  async (alive, text) => {
    const { session, store } = recovered({ phase: "owner", epoch: 1 }, [], { alive });
    await session.run();
    expect(store.get("m1").error?.detail).toContain(text);
  },
);

test("disks that follow a guest are served, shown, and may be slowed down", async () => {
  const told: (number | string | null)[] = [];
  const disks = [{ id: "disk0", totalBytes: 4096, remainingBytes: 1024 }];
  const diskRest: LeftDisksRest = {
    progress: { disks, wireBytes: 3000, reconnects: 1 },
    setBandwidthLimit: (limit) => told.push(limit),
    close: () => {
      told.push("close");
      return Promise.resolve();
    },
  };
  const released = { phase: "released", stun, incarnation: "d1" } as const;
  const { session, store, clock } = recovered(released, [], { diskRest });
  const ended = session.run();
  await expect.poll(() => store.get("m1").phase).toBe("post-copy");
  const { disks: shown, wire } = store.get("m1");
  expect(shown).toMatchObject([{ id: "disk0", copiedBytes: 3072, remainingBytes: 1024 }]);
  expect(wire).toMatchObject({ bytes: 3000, reconnects: 1 });
  session.setLimits({ bandwidthBytesPerSecond: 5000 });
  expect(() => {
    session.setLimits({ downtimeMsMax: 5 });
  }).toThrow();
  session.stop();
  // It sleeps between two questions to the dest.
  clock.advance(60_000);
  await ended;
  expect(told).toEqual([5000, "close"]);
});

test.each(["handed-off", "unclear"] as const)(
  "the word of an operator for the dest ends nothing that the dest may still lack: %s",
  async (phase) => {
    const disks = [{ id: "disk0", totalBytes: 4 << 20, remainingBytes: 1 << 20 }];
    let closed = 0;
    const diskRest: LeftDisksRest = {
      progress: { disks, wireBytes: 3000, reconnects: 0 },
      setBandwidthLimit: () => undefined,
      close: () => {
        closed++;
        return Promise.resolve();
      },
    };
    const state = { phase, stun, incarnation: "d1" };
    const { session, store, clock, records } = recovered(state, [], { diskRest });
    const ended = session.run();
    // Whose it is nobody knows yet, where it is unclear: then its disks are served behind the word.
    if (phase === "handed-off") await expect.poll(() => store.get("m1").disks).toHaveLength(1);
    else await expect.poll(() => store.get("m1").phase).toBe("in-doubt");
    await session.settle("dest");
    await expect.poll(() => store.get("m1").disks).toHaveLength(1);
    expect([store.get("m1").phase, records]).toEqual(["post-copy", ["released"]]);
    await expect(session.settle("dest")).rejects.toThrow("1 MiB of its disks have not followed");
    expect([closed, discarded]).toEqual([0, 0]);
    // Of what is served it has to hear, and its COMPLETE is waited for.
    dials = 0;
    await expect
      .poll(() => {
        clock.advance(5000);
        return dials;
      })
      .toBeGreaterThan(1);
    session.stop();
    clock.advance(60_000);
    await ended;
    expect([closed, discarded, records]).toEqual([1, 0, ["released"]]);
  },
);

test("memory that cannot be read is not let go of by the word of an operator", async () => {
  const released = { phase: "released", stun, incarnation: "d1" } as const;
  const serveMemory = (): Promise<never> => Promise.reject(new Error("m1.pages.index: EIO"));
  const { session, clock } = recovered(released, [], { serveMemory });
  const ended = session.run();
  await expect(session.settle("dest")).rejects.toMatchObject({
    code: "not-in-doubt",
    message: expect.stringMatching(/cannot be served.*move m1\.\* out of "memory"/) as string,
  });
  session.stop();
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  // It sleeps between two questions to the dest.
  await expect
    .poll(() => {
      clock.advance(60_000);
      return isOver;
    })
    .toBe(true);
  expect(discarded).toBe(0);
});

test("an operator may let go of a guest that nothing follows", async () => {
  const released = { phase: "released", stun, incarnation: "d1" } as const;
  const { session, store, clock } = recovered(released, []);
  const ended = session.run();
  await session.settle("dest");
  clock.advance(60_000);
  await ended;
  expect([store.get("m1").phase, discarded]).toEqual(["completed", 2]);
});

/** What can be served of a guest, and would be shown so. */
const servable = { setBandwidthLimit: () => undefined, close: () => Promise.resolve() };
const leftMemory: LeftRest = {
  ...servable,
  progress: {
    ...{ remainingBytes: 4096, wireBytes: 0, requestedPages: 0, reconnects: 0, fallback: null },
  },
};
const leftDisks: LeftDisksRest = {
  ...servable,
  progress: {
    disks: [{ id: "disk0", totalBytes: 4096, remainingBytes: 4096 }],
    ...{ wireBytes: 0, reconnects: 0 },
  },
};

/** `rest`, behind one attempt that fails. */
function servedLater<Rest>(reason: string, rest: Rest): () => Promise<Rest> {
  let attempts = 0;
  return () => (attempts++ === 0 ? Promise.reject(new Error(reason)) : Promise.resolve(rest));
}

const WRITTEN = "/images/web1.raw was written to";
const UNREADABLE = "m1.pages.index cannot be read: EIO";

test.each([
  ["disks", WRITTEN, { serveDisks: servedLater(WRITTEN, leftDisks) }],
  ["memory", UNREADABLE, { serveMemory: servedLater(UNREADABLE, leftMemory) }],
])("%s that cannot be served are shown until they can be", async (_what, reason, options) => {
  const released = { phase: "released", stun, incarnation: "d1" } as const;
  const { session, store, clock } = recovered(released, [], options);
  const ended = session.run();
  await expect.poll(() => store.get("m1").phase).toBe("in-doubt");
  expect(store.get("m1").error?.detail).toContain(reason);
  clock.advance(5000);
  await expect.poll(() => store.get("m1").phase).toBe("post-copy");
  expect(store.get("m1").error).toBe(null);
  session.stop();
  clock.advance(60_000);
  await ended;
});

test.each(["released", "handed-off"] as const)(
  "a dest is asked although what it may lack cannot be served, and the agent may stop: %s",
  async (phase) => {
    const fails = (): Promise<never> => Promise.reject(new Error(WRITTEN));
    const state = { phase, stun, incarnation: "d1" } as const;
    const options = { serveDisks: fails, serveMemory: fails };
    const { session, store, clock } = recovered(state, [], options);
    const ended = session.run();
    await expect
      .poll(() => {
        clock.advance(1000);
        return dials;
      })
      .toBeGreaterThan(2);
    expect(store.get("m1").phase).toBe("in-doubt");
    session.stop();
    clock.advance(60_000);
    await ended;
  },
);

test("a dest that is not configured any more is shown, for it cannot say that it has everything", async () => {
  const released = { phase: "released", stun, incarnation: "d1" } as const;
  const peerRefusal = "host-b is not a configured peer any more";
  const { session, store, clock } = recovered(released, [], { peerRefusal });
  const ended = session.run();
  await expect.poll(() => store.get("m1").error?.detail).toContain(peerRefusal);
  session.stop();
  clock.advance(60_000);
  await ended;
});

test("a guest that somebody has started is stopped, and while it is unclear no disk is served", async () => {
  const done: string[] = [];
  const { session, store } = recovered(
    { phase: "unclear", stun, incarnation: null },
    [{ do: "halt-guest" }],
    {
      halt: () => {
        done.push("halted");
        return Promise.resolve();
      },
      serveDisks: () => {
        done.push("served");
        return Promise.resolve(null);
      },
    },
  );
  const ended = session.run();
  await expect.poll(() => done).toEqual(["halted"]);
  session.stop();
  await ended;
  expect([done, store.get("m1").phase]).toEqual([["halted"], "in-doubt"]);
});

test("disks that are not served yet are not served any more once the guest is the source's", async () => {
  let attempts = 0;
  const { session, store, records, clock } = recovered(
    { phase: "handed-off", stun, incarnation: "d1" },
    [],
    {
      serveDisks: () => {
        attempts += 1;
        return Promise.reject(new Error("it is in use"));
      },
    },
  );
  const ended = session.run();
  await expect.poll(() => store.get("m1").error?.detail).toContain("it is in use");
  expect(store.get("m1").error?.detail).toContain("stands still");
  await session.settle("source");
  clock.advance(60_000);
  await ended;
  clock.advance(60_000);
  expect([records, attempts]).toEqual([["reclaimed"], 1]);
});

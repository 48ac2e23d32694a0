import { expect, test } from "vitest";
import { createLogger, EventHub, ManualClock, MigrationStore } from "@vmferry/agent";
import type { SourceOwnership, SourceStep } from "@vmferry/protocol";
import { RecoveredSession } from "./recovered-session.ts";

const stun = { migrationId: "m1", epoch: 2, generation: 1 };

interface Recovered {
  readonly session: RecoveredSession;
  readonly store: MigrationStore;
  readonly records: string[];
}

function recovered(
  state: SourceOwnership,
  actions: SourceStep["actions"],
  { alive = true, bringBack = () => Promise.resolve() } = {},
): Recovered {
  const clock = new ManualClock();
  const store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  const records: string[] = [];
  const nothing = (): Promise<void> => Promise.resolve();
  const session = new RecoveredSession(
    {
      guest: {
        ...{ name: "web1", epoch: 1, alive, busyWith: null, end: nothing },
        ...{ owned: () => undefined, handedOff: () => undefined, inDoubt: () => undefined },
      },
      qemu: { resume: nothing, cont: nothing, halt: nothing, onEvent: () => () => undefined },
      journal: {
        incarnation: "s1",
        append: ({ kind }) => {
          records.push(kind);
          return Promise.resolve();
        },
      },
      closeJournal: nothing,
      peer: "host-b",
      witness: () => null,
      bringBack,
      markLeft: nothing,
      rest: { serve: () => Promise.resolve(null), discard: nothing },
      leftDisks: { serve: () => Promise.resolve(null), discard: nothing },
      ...{ store, clock, logger: createLogger({ role: "source", level: "silent" }) },
      dialer: { control: () => Promise.reject(new Error("nobody answers")) },
      identity: { software: "test", incarnation: "p1" },
    },
    stun,
    { state, actions },
  );
  return { session, store, records };
}

test.each([
  ["nobody has settled", { phase: "unclear", stun } as const, []],
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

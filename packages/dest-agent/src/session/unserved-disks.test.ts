// What is shown of a guest of an earlier life, and done with it, while a disk of it cannot be opened.
import { beforeEach, expect, test } from "vitest";
import { createLogger, EventHub, ManualClock, MigrationStore } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { recoverDest, type DestRecord, type SeenQemu } from "@vmferry/protocol";
import { RecoveredArrival, type RecoveredDisks } from "./recovered-arrival.ts";

const STUN = { migrationId: "m1", epoch: 8, generation: 1 };

let clock: ManualClock;
let store: MigrationStore;
let log: string[];
let disks: { -readonly [Key in keyof RecoveredDisks["disks"]]: RecoveredDisks["disks"][Key] };
let whole: Deferred;

beforeEach(() => {
  clock = new ManualClock();
  store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  log = [];
  const nobody = (): undefined => undefined;
  const lost = new Error("EMFILE");
  const told = { onFailed: nobody, onLost: nobody, onStuck: nobody };
  disks = { progress: [], isWhole: false, lost, ...told };
  whole = new Deferred();
});

function arrive(record: "prepared" | "taken", seen: SeenQemu): RecoveredArrival {
  const note = (what: string): Promise<void> => {
    log.push(what);
    return Promise.resolve();
  };
  const last = { record, stun: STUN, digest: "ab".repeat(32) } as DestRecord;
  const arrival = new RecoveredArrival(
    {
      ...{ store, clock, guest: "web1", uuid: "u1", witness: null, fetch: null },
      logger: createLogger({ role: "dest", level: "silent" }),
      journal: {
        incarnation: "d1",
        append: ({ kind }) => note(`record ${kind}`),
        close: () => Promise.resolve(),
      },
      holding: {
        exited: new Promise(() => undefined),
        isAlive: () => true,
        onResume: () => undefined,
        start: () => Promise.resolve({ kind: "running" }),
        keep: () => note("keep"),
        discard: () => note("discard"),
        owned: () => undefined,
        inDoubt: () => undefined,
      },
      lazy: { disks, whole: () => whole.promise },
      isWitnessed: () => false,
      occupy: () => undefined,
    },
    { stun: STUN, incarnation: "s1" },
    recoverDest({ last, qemu: seen }),
  );
  void arrival.run();
  return arrival;
}

async function pass(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

test("one that runs is in doubt with what to do, until it can, and is complete when all of it is here", async () => {
  const arrival = arrive("taken", "running");
  await pass();
  const shown = store.get("m1");
  expect(shown.phase).toBe("in-doubt");
  expect(shown.error?.detail).toMatch(/it is tried again: .* mend what the reason names.*EMFILE/);
  await expect(arrival.handOver.settle("dest")).rejects.toMatchObject({ code: "not-in-doubt" });
  disks.onLost(null);
  await pass();
  expect([store.get("m1").phase, log]).toEqual(["post-copy", []]);
  whole.resolve();
  await pass();
  expect([store.get("m1").phase, log]).toEqual(["completed", ["record complete", "keep"]]);
});

test("what one disk has lost for good stays shown when another can be opened", async () => {
  arrive("taken", "running");
  await pass();
  disks.onFailed(new Error("it failed to store"));
  disks.onLost(null);
  await pass();
  const { phase, error } = store.get("m1");
  expect([phase, error?.detail]).toEqual([
    "in-doubt",
    expect.stringContaining("it failed to store"),
  ]);
});

test("one that was not taken yet is refused: its source has all of it", async () => {
  arrive("prepared", "paused");
  await pass();
  expect(log).toEqual(["record refused", "discard"]);
});

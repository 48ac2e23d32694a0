// What a dest does with the QEMU of an offer that it does not take, where that QEMU cannot be killed.
import { beforeEach, expect, test } from "vitest";
import {
  createLogger,
  EventHub,
  ManualClock,
  MigrationStore,
  ProblemError,
  type Guest,
  type GuestRecord,
  type GuestRegistry,
  type Journal,
  type JournalShelf,
} from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { fillGuestDefinition } from "@vmferry/protocol";
import { DestSessions } from "./dest-sessions.ts";
import type { GuestHolding } from "./guest-holding.ts";
import { OfferingSource, offerOf, OFFERED_UUID } from "./offering-source.ts";
import type { Reception } from "./reception.ts";

let clock: ManualClock;
let store: MigrationStore;
let sessions: DestSessions;
/** QEMU of the first offer; those of later ones end. */
let isAlive: boolean;
let ended: Deferred;
let started: string[];
let journalsRemoved: number;
let attempts: number;
/** Else its QEMU is ready for the guest, and only the journal is not. */
let listens: boolean;

beforeEach(() => {
  clock = new ManualClock();
  store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  isAlive = true;
  ended = new Deferred();
  started = [];
  journalsRemoved = 0;
  attempts = 0;
  listens = false;
  const holding = {
    exited: ended.promise,
    isAlive: () => isAlive,
    discard: () => {
      attempts += 1;
      return isAlive ? Promise.reject(new Error("it waits for storage")) : Promise.resolve();
    },
  } as unknown as GuestHolding;
  const journal = {
    ...{ incarnation: "d1", last: null, records: [] },
    append: () => Promise.reject(new Error("nothing is promised")),
    close: () => Promise.resolve(),
    remove: () => {
      journalsRemoved += 1;
      return Promise.resolve();
    },
  };
  sessions = new DestSessions({
    store,
    journals: { take: () => Promise.resolve(journal as unknown as Journal<"dest">) },
    logger: createLogger({ role: "dest", level: "silent" }),
    ...{ clock, witness: null, sharedDir: null, software: "test", incarnation: "d1" },
    ...{ guestsDir: "guests", runDir: "run", onPageFault: () => undefined },
    answerProbe: () => Promise.reject(new Error("nobody asks")),
    openReception: ({ offer, onLeft }) => {
      started.push(offer.migrationId);
      if (listens) {
        const close = (): Promise<void> => Promise.resolve();
        return Promise.resolve({ holding, lazy: null, close } as unknown as Reception);
      }
      if (started.length === 1) onLeft(holding);
      return Promise.reject(new ProblemError("it does not listen", { code: "dest-qemu-failed" }));
    },
  });
});

async function offer(migrationId: string): Promise<OfferingSource> {
  const source = new OfferingSource(migrationId);
  void sessions.admitControl(source);
  await pass();
  return source;
}

/** Lets everything that is due happen, for so long. */
async function pass(ms = 0): Promise<void> {
  for (let passed = 0; passed <= ms; passed += 500) {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
    clock.advance(500);
  }
}

test("an offer whose QEMU neither listens nor ends is refused at once, and is in doubt until it is gone", async () => {
  const source = await offer("m1");
  expect(source.rejected).toMatchObject({ code: "dest-qemu-failed", text: "it does not listen" });
  const { phase, error } = store.get("m1");
  expect([phase, error?.detail]).toEqual([
    "in-doubt",
    expect.stringContaining("it waits for storage"),
  ]);
  await expect(sessions.resolve("m1", "source")).rejects.toThrow("it waits for storage");
  await pass(120_000);
  expect(attempts).toBeGreaterThan(5);
  expect([store.get("m1").phase, journalsRemoved]).toEqual(["in-doubt", 0]);

  isAlive = false;
  ended.resolve();
  await pass();
  expect(store.get("m1")).toMatchObject({ phase: "failed", error: { code: "dest-qemu-failed" } });
  expect(journalsRemoved).toBe(1);
});

test("another offer of the guest waits for that for a time, and is told what it would wait for", async () => {
  await offer("m1");
  const source = await offer("m2");
  await pass(15_000);
  expect(source.rejected).toBeNull();
  await pass(10_000);
  expect(source.rejected).toMatchObject({ code: "migration-active" });
  expect(source.rejected!.text).toMatch(/migration m1, .*it waits for storage/);
  expect(started).toEqual(["m1"]);
});

test("another offer of the guest is taken as soon as that QEMU is gone", async () => {
  await offer("m1");
  await offer("m2");
  await pass(5000);
  expect(started).toEqual(["m1"]);
  isAlive = false;
  ended.resolve();
  await pass();
  expect(started).toEqual(["m1", "m2"]);
});

test("a source that hangs up meanwhile is not waited with", async () => {
  await offer("m1");
  const source = await offer("m2");
  source.hangUp();
  isAlive = false;
  await pass();
  ended.resolve();
  await pass();
  expect(started).toEqual(["m1"]);
});

test("an agent that stops leaves that QEMU to its next life, and says nothing of it that is not so", async () => {
  await offer("m1");
  const before = attempts;
  let isStopped = false;
  void sessions.stop().then(() => {
    isStopped = true;
  });
  await pass();
  expect(isStopped).toBe(true);
  const late = await offer("m2");
  expect(late.rejected).toMatchObject({ code: "agent-stopped" });
  await pass(60_000);
  expect([attempts, started]).toEqual([before, ["m1"]]);
  expect([store.get("m1").phase, journalsRemoved]).toEqual(["in-doubt", 0]);
});

test("an offer that the journal cannot take is refused, and its QEMU is ended until it is gone", async () => {
  listens = true;
  const source = await offer("m1");
  expect(source.rejected).toMatchObject({ text: expect.stringContaining("promised") as string });
  expect(attempts).toBe(1);
  const next = await offer("m2");
  await pass(5000);
  expect([next.rejected, started]).toEqual([null, ["m1"]]);
  expect(store.get("m1").error?.detail).toContain("it waits for storage");
  isAlive = false;
  ended.resolve();
  await pass();
  expect([store.get("m1").phase, started]).toEqual(["failed", ["m1", "m2"]]);
});

/** The agent starts anew, and finds the QEMU of an offer that nothing was promised of. */
function recoverWithIt(): { readonly recovered: Promise<unknown>; readonly log: string[] } {
  const log: string[] = [];
  const { guest: definition } = offerOf("m1");
  const record = {
    ...{
      definition: fillGuestDefinition(definition),
      stage: "incoming",
      uuid: OFFERED_UUID,
      epoch: 3,
    },
  } as unknown as GuestRecord;
  const process = {
    exited: ended.promise,
    isRunning: () => isAlive,
    kill: () => {
      attempts += 1;
      return isAlive ? Promise.reject(new Error("it waits for storage")) : Promise.resolve();
    },
  };
  const guest = {
    ...{ process, definition: record.definition, exited: ended.promise, busyWith: null },
    qmp: { onEvent: () => () => undefined },
    get alive() {
      return isAlive;
    },
    inDoubt: () => log.push("in doubt"),
  } as unknown as Guest;
  const registry = {
    findEarlier: () => Promise.resolve({ records: [record], unreadable: [] }),
    look: () => Promise.resolve({ record, process, qemu: "inmigrate" }),
    admit: () => {
      log.push("admit");
      return Promise.resolve(guest);
    },
    forget: () => {
      log.push("forget");
      return Promise.resolve();
    },
  } as unknown as GuestRegistry;
  const journals = { list: () => Promise.resolve([]) } as unknown as JournalShelf<"dest">;
  const none = (): Promise<never[]> => Promise.resolve([]);
  const where = { registry, journals, imageDir: "/nowhere", takeUp: none, takeUpDisks: none };
  return { recovered: sessions.recover(where), log };
}

test("an agent that starts anew beside such a QEMU starts, holds the guest's name, and ends it", async () => {
  const { recovered, log } = recoverWithIt();
  let isRecovered = false;
  void recovered.then(() => {
    isRecovered = true;
  });
  await pass(30_000);
  expect([isRecovered, log]).toEqual([true, ["admit"]]);
  const [shown] = store.list({ limit: 10 }).migrations;
  expect([shown?.phase, shown?.error?.detail]).toEqual([
    "in-doubt",
    expect.stringContaining("it waits for storage"),
  ]);
  const source = await offer("m2");
  await pass(25_000);
  expect(source.rejected).toMatchObject({ code: "migration-active" });

  isAlive = false;
  ended.resolve();
  await pass();
  expect(log).toEqual(["admit", "forget"]);
  expect(store.get(shown!.id).phase).toBe("failed");
});

test("one whose QEMU ends as it is told is not spoken of", async () => {
  isAlive = false;
  const { recovered, log } = recoverWithIt();
  await recovered;
  expect(log).toEqual(["admit", "forget"]);
  expect(store.list({ limit: 10 }).migrations).toEqual([]);
});

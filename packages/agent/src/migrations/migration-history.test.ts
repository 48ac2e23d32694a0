import { mkdir, mkdtemp, readdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MigrationObject } from "@vmferry/protocol";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { EventHub } from "../events/event-hub.ts";
import { ManualClock } from "../events/manual-clock.ts";
import { createLogger } from "../log.ts";
import { COMPLETED_SOMEHOW, endedMigration } from "./ended-migration.ts";
import { MigrationHistory } from "./migration-history.ts";
import { MigrationStore, type MigrationOutcome } from "./migration-store.ts";
import { newMigrationObject } from "./new-migration-object.ts";

const COMPLETED: MigrationOutcome = {
  phase: "completed",
  result: { downtimeMs: 42, totalMs: 9000, wireBytes: 7, ramDigest: "ab", diskDigests: {} },
};
const CANCELLED: MigrationOutcome = {
  phase: "cancelled",
  error: { code: "cancelled", detail: "by an operator" },
};
const FAILED: MigrationOutcome = {
  phase: "failed",
  error: { code: "agent-stopped", detail: "the dest agent was stopped" },
};

const histories: MigrationHistory[] = [];
let stateDir: string;
let directory: string;
let logged: string;
let clock: ManualClock;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "vmferry-history-"));
  directory = join(stateDir, "migrations");
  logged = "";
  clock = new ManualClock();
});

afterEach(async () => {
  // What is still being written would come behind the removal.
  for (const history of histories.splice(0)) await history.idle();
  await rm(stateDir, { recursive: true });
});

function historyOf(): MigrationHistory {
  const sink = { write: (line: string) => void (logged += line) };
  const logger = createLogger({ role: "source", level: "info", stream: sink });
  const history = new MigrationHistory({ role: "source", stateDir, logger });
  histories.push(history);
  return history;
}

interface Life {
  readonly hub: EventHub;
  readonly store: MigrationStore;
  readonly history: MigrationHistory;
}

/** Of an agent, over what the lives before it have left. */
async function begin(
  retention: { finishedMax?: number; finishedMsMax?: number } = {},
): Promise<Life> {
  const hub = new EventHub({ clock });
  const history = historyOf();
  const store = new MigrationStore({ hub, clock, history, ...retention });
  store.restore(await history.read());
  return { hub, store, history };
}

function sample(id: string): MigrationObject {
  const about = { id, role: "source", guest: "web1", destination: "host-b" } as const;
  return newMigrationObject({ ...about, startedAt: clock.date() });
}

async function leave(
  outcomes: Readonly<Record<string, MigrationOutcome>>,
): Promise<MigrationObject[]> {
  const { store, history } = await begin();
  for (const [id, outcome] of Object.entries(outcomes)) {
    store.create(sample(id));
    clock.advance(1000);
    store.finish(id, outcome);
  }
  await history.idle();
  return Object.keys(outcomes).map((id) => store.get(id));
}

const idsOf = (store: MigrationStore): string[] =>
  store.list({ limit: 10 }).migrations.map(({ id }) => id);

describe("a later life of the agent", () => {
  test("lists what has ended as it was, in its order, and tells nobody", async () => {
    const left = await leave({ z1: COMPLETED, a2: FAILED, m3: CANCELLED });
    const { store, hub } = await begin();
    expect(store.list({ limit: 10 }).migrations).toEqual(left.toReversed());
    const subscription = hub.subscribe({ afterId: 0 });
    expect(subscription.pendingCount).toBe(0);
    subscription.close();
  });

  test("does not list what had not ended", async () => {
    const { store, history } = await begin();
    store.create(sample("m1"));
    await history.idle();
    expect(idsOf((await begin()).store)).toEqual([]);
  });

  test("drops what is kept for long enough, and its file", async () => {
    await leave({ m1: COMPLETED, m2: COMPLETED });
    clock.advance(3500);
    const { store, history } = await begin({ finishedMsMax: 4000 });
    expect(idsOf(store)).toEqual(["m2"]);
    await history.idle();
    expect(await readdir(directory)).toEqual(["m2.json"]);
  });

  test("keeps the latest of more than it may keep", async () => {
    await leave({ m1: COMPLETED, m2: COMPLETED, m3: FAILED });
    const { store, history } = await begin({ finishedMax: 2 });
    expect(idsOf(store)).toEqual(["m3", "m2"]);
    await history.idle();
    expect((await readdir(directory)).toSorted()).toEqual(["m2.json", "m3.json"]);
  });

  test.each([
    ["completed", COMPLETED, COMPLETED_SOMEHOW],
    ["cancelled", CANCELLED, FAILED],
  ] as const)("that finds by a journal what was %s shows it as it was", async (_, was, found) => {
    const [left] = await leave({ m1: was });
    const { store, history, hub } = await begin();
    store.createUnlessKnown(sample("m1"));
    store.finish("m1", found);
    expect(store.get("m1")).toEqual(left);
    store.restore([endedMigration({ ...left!, endedAt: new Date(0), outcome: found })]);
    expect(store.get("m1")).toEqual(left);
    await history.idle();
    expect(hub.subscribe({ afterId: 0 }).pendingCount).toBe(0);
  });

  test("forgets nothing that its session still works on, and then as any other", async () => {
    const [left] = await leave({ m1: COMPLETED });
    const { store, history } = await begin({ finishedMax: 1 });
    store.createUnlessKnown(sample("m1"));
    clock.advance(1000);
    store.create(sample("m2"));
    store.finish("m2", COMPLETED);
    expect(store.get("m1")).toEqual(left);
    store.finish("m1", COMPLETED_SOMEHOW);
    expect(idsOf(store)).toEqual(["m2"]);
    await history.idle();
  });

  test("believes a journal that says that it is still open, and keeps when it began", async () => {
    const [left] = await leave({ m1: COMPLETED });
    const { store } = await begin();
    store.inDoubt("m1", "look at host-b");
    expect(store.get("m1")).toMatchObject({ phase: "in-doubt", result: null });
    expect(store.get("m1").phases[0]).toEqual(left!.phases[0]);
    store.finish("m1", FAILED);
    expect(store.get("m1")).toMatchObject(FAILED);
    expect(idsOf(store)).toEqual(["m1"]);
  });
});

test("however many are no longer kept, their files go at once", async () => {
  const [m1] = await leave({ m1: COMPLETED });
  for (let at = 2; at <= 1500; at++) {
    const migration = { ...m1, id: `m${at}` };
    await writeFile(join(directory, `m${at}.json`), JSON.stringify({ version: 1, migration }));
  }
  const { store, history } = await begin({ finishedMax: 2 });
  await history.idle();
  expect(idsOf(store)).toHaveLength(2);
  expect(await readdir(directory)).toHaveLength(2);
  expect(logged).not.toContain("too many");
});

test("a disk that has stopped answering is not waited for by more than a thousand", async () => {
  // One that refuses will do: nothing is tried before everybody has asked.
  await writeFile(directory, "a file in its place");
  const history = historyOf();
  for (let at = 0; at < 1001; at++) history.keep(sample(`m${at}`));
  await history.idle();
  expect(logged.match(/too many wait/g)).toHaveLength(1);
  history.keep(sample("m1"));
  await history.idle();
  expect(logged.match(/too many wait/g)).toHaveLength(1);
});

describe("a file that is not right", () => {
  const spoil: Readonly<Record<string, (path: string, good: string) => Promise<void>>> = {
    "is no JSON": (path) => writeFile(path, "{"),
    "is nothing": (path) => writeFile(path, "null"),
    "is of another version": (path, good) =>
      writeFile(path, good.replace('"version":1', '"version":2')),
    "lacks a field": (path, good) => writeFile(path, good.replace('"guest"', '"gast"')),
    "counts below nothing": (path, good) =>
      writeFile(path, good.replace('"sentBytes":0', '"sentBytes":-1')),
    "has no date": (path, good) => writeFile(path, good.replaceAll(/"at":"[^"]*"/g, '"at":"soon"')),
    "has a leap second": (path, good) =>
      writeFile(path, good.replaceAll(/"at":"[^"]*"/g, '"at":"2030-06-30T23:59:60Z"')),
    "is of another migration": (path, good) =>
      writeFile(path, good.replace('"id":"m1"', '"id":"m2"')),
    "is the other agent's": (path, good) =>
      writeFile(path, good.replace('"role":"source"', '"role":"dest"')),
    "has not ended": (path, good) => writeFile(path, good.replaceAll('"completed"', '"pre-copy"')),
    "is completed by nothing": (path, good) =>
      writeFile(path, good.replace(/"result":\{.*?\}\}?/, '"result":null')),
    "is too large": (path) => truncate(path, 1024 * 1024 * 1024),
    "is a link": async (path) => {
      await rm(path);
      await symlink("/dev/zero", path);
    },
    "is a directory": async (path) => {
      await rm(path);
      await mkdir(path);
    },
  };
  test.each(Object.keys(spoil))(
    "that %s is logged and left out, and the others are listed",
    async (name) => {
      const [m1] = await leave({ m1: COMPLETED, m9: FAILED });
      const good = `${JSON.stringify({ version: 1, migration: m1 })}\n`;
      await spoil[name]!(join(directory, "m1.json"), good);
      const found = await historyOf().read();
      expect(found.map(({ id }) => id)).toEqual(["m9"]);
      expect(logged).toContain("the migration in this file is not listed");
      expect(logged).toContain("m1.json");
    },
  );

  test("that was torn is removed, and what is no migration's is left alone", async () => {
    await leave({ m1: COMPLETED });
    await writeFile(join(directory, "m2.json.new"), "{");
    await writeFile(join(directory, "README"), "mine");
    expect(await historyOf().read()).toHaveLength(1);
    expect((await readdir(directory)).toSorted()).toEqual(["README", "m1.json"]);
  });
});

test("a directory that cannot be used is logged, and migrations go on", async () => {
  await writeFile(directory, "a file in its place");
  const { store, history } = await begin();
  store.create(sample("m1"));
  store.finish("m1", COMPLETED);
  await history.idle();
  expect(idsOf(store)).toEqual(["m1"]);
  expect(logged).toContain("earlier migrations are not listed");
  expect(logged).toContain("the next life of the agent may not list it right");
});

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, EventHub, ManualClock, MigrationStore } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { CloseCode, recoverDest, type DestRecord, type SeenQemu } from "@vmferry/protocol";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ContOutcome } from "../adapters/start-loaded.ts";
import { keepSection } from "../adapters/kept-section.ts";
import { CLAIM, FakeQemu, GUEST, later, muchTime, SECTION, STUN } from "./memory-bench.ts";
import { MemoryFetch } from "./memory-fetch.ts";
import { RecoveredArrival } from "./recovered-arrival.ts";

const HELLO = { kind: "pages-hello", version: 2, ...CLAIM, lane: "urgent", attempt: 1 } as const;

let root: string;
let directory: string;
let clock: ManualClock;
let store: MigrationStore;
let qemu: FakeQemu | null;
let log: string[];
let exited: Deferred;
let outcome: ContOutcome;
let fetches: MemoryFetch[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "vmferry-fetch-"));
  directory = join(root, "guests", GUEST);
  await mkdir(directory, { recursive: true });
  clock = new ManualClock();
  store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  qemu = null;
  log = [];
  exited = new Deferred();
  outcome = { kind: "running" };
  fetches = [];
});

afterEach(async () => {
  for (const fetch of fetches) fetch.close();
  await qemu?.close();
  await rm(root, { recursive: true });
});

function sectionPath(): string {
  return join(directory, "ram-section.json");
}

/** The agent starts anew; what waits for time gets it. */
async function takeUp(): Promise<MemoryFetch[]> {
  const logger = createLogger({ role: "dest", level: "silent" });
  let isOver = false;
  const taking = MemoryFetch.takeUpAll({
    ...{ guestsDir: join(root, "guests"), runDir: root, sharedDir: null, clock, logger },
    onPageFault: () => undefined,
  }).finally(() => {
    isOver = true;
  });
  taking.catch(() => undefined);
  await later(clock, () => isOver);
  return (fetches = await taking);
}

/** What the journal said last, and what becomes of the guest. */
function arrive(
  record: "prepared" | "taken",
  seen: SeenQemu,
): { arrival: RecoveredArrival; ended: Promise<void> } {
  const note = (what: string): Promise<void> => {
    log.push(what);
    return Promise.resolve();
  };
  const fetch = fetches.find((one) => one.isOf({ ...STUN, guest: GUEST })) ?? null;
  const last = { record, stun: STUN, digest: "ab".repeat(32) } as DestRecord;
  const arrival = new RecoveredArrival(
    {
      ...{ store, clock, guest: GUEST, uuid: "u1", witness: null, fetch, lazy: null },
      logger: createLogger({ role: "dest", level: "silent" }),
      journal: {
        incarnation: "d1",
        append: ({ kind }) => note(`record ${kind}`),
        close: () => Promise.resolve(),
      },
      holding: {
        exited: exited.promise,
        isAlive: () => !exited.settled,
        onResume: () => undefined,
        start: () => Promise.resolve(outcome),
        keep: () => note("keep"),
        discard: () => note("discard"),
        owned: () => undefined,
        inDoubt: () => undefined,
      },
      isWitnessed: () => false,
      occupy: () => undefined,
    },
    { stun: STUN, incarnation: "s1" },
    recoverDest({ last, qemu: seen }),
  );
  return { arrival, ended: arrival.run() };
}

function shown(): { phase: string; detail: string } {
  const { phase, error } = store.get(STUN.migrationId);
  return { phase, detail: error?.detail ?? "" };
}

describe("a guest that was taken, and whose memory cannot be taken up", () => {
  test.each<[string, () => Promise<unknown>, () => Promise<unknown>]>([
    [
      "its section cannot be read",
      () => mkdir(sectionPath()),
      async () => {
        await rm(sectionPath(), { recursive: true });
        await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: false });
      },
    ],
    [
      "QEMU does not listen",
      () => {
        qemu!.refusal = "Migrate recover can only be run when postcopy is paused.";
        return keepSection(directory, CLAIM, {
          ...SECTION,
          fileKey: null,
          hasUrgentChannel: false,
        });
      },
      () => {
        qemu!.refusal = null;
        return Promise.resolve();
      },
    ],
  ])(
    "is in doubt and never complete, until that works: %s",
    async (_what, breakIt, mend) => {
      qemu = await FakeQemu.open(directory);
      await breakIt();
      await takeUp();
      const { arrival, ended } = arrive("taken", "running");
      await muchTime(clock);
      expect([arrival.handOver.state.phase, log]).toEqual(["fetching", []]);
      expect(shown()).toMatchObject({
        phase: "in-doubt",
        detail: expect.stringContaining("end this QEMU") as string,
      });
      await mend();
      await later(clock, () => arrival.handOver.state.phase === "owner");
      await ended;
      expect(log).toEqual(["record complete", "keep"]);
      expect(shown().phase).toBe("completed");
    },
    20_000,
  );

  test("is down when its QEMU dies, and that is what is shown", async () => {
    qemu = await FakeQemu.open(directory);
    qemu.refusal = "no";
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: false });
    await takeUp();
    const { arrival } = arrive("taken", "running");
    await later(clock, () => shown().phase === "in-doubt");
    exited.resolve();
    await muchTime(clock);
    expect([arrival.handOver.state.phase, log]).toEqual(["down", []]);
    expect(shown().detail).toContain("its QEMU is gone");
  });

  test("is taken up once more where QEMU lets go of it in the middle", async () => {
    qemu = await FakeQemu.open(directory);
    qemu.lacksMemory = true;
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: false });
    const [fetch] = await takeUp();
    const { arrival, ended } = arrive("taken", "running");
    await muchTime(clock);
    expect([fetch!.lost, shown().phase]).toEqual([null, "post-copy"]);
    qemu.refusal = "no";
    qemu.dropConnections();
    await later(clock, () => shown().phase === "in-doubt");
    expect(arrival.handOver.state.phase).toBe("fetching");
    qemu.refusal = null;
    await later(clock, () => shown().phase === "post-copy");
    qemu.lacksMemory = false;
    qemu.dropConnections();
    await later(clock, () => arrival.handOver.state.phase === "owner");
    await ended;
    expect(log).toEqual(["record complete", "keep"]);
  });

  test("is not let go of by a person while its QEMU lives and does not run", async () => {
    qemu = await FakeQemu.open(directory);
    qemu.refusal = "no";
    outcome = { kind: "stands-still", reason: "no" };
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: false });
    await takeUp();
    const { arrival, ended } = arrive("taken", "paused");
    await later(clock, () => arrival.handOver.state.phase === "down");
    await expect(arrival.handOver.settle("dest")).rejects.toMatchObject({ code: "not-in-doubt" });
    exited.resolve();
    await arrival.handOver.settle("dest");
    await ended;
    expect(log).toEqual(["record complete", "keep"]);
  });

  test("tells its source to dial anew, and that it is done in the end", async () => {
    qemu = await FakeQemu.open(directory);
    qemu.refusal = "no";
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: false });
    const [fetch] = await takeUp();
    expect(fetch!.claimMatches(HELLO)).toBe(true);
    const codes: CloseCode[] = [];
    const link = {
      ...{ send: () => undefined, listen: () => undefined },
      close: (code: CloseCode) => void codes.push(code),
    };
    fetch!.attachPages("urgent", 1, link);
    qemu.refusal = null;
    let isWhole = false;
    void fetch!
      .whole(() => undefined)
      .then(() => {
        isWhole = true;
      });
    await later(clock, () => isWhole);
    fetch!.close();
    fetch!.attachPages("urgent", 2, link);
    expect(codes).toEqual([CloseCode.SESSION_UNKNOWN, CloseCode.DONE]);
  });
});

test("a guest that was not taken yet is refused where its memory cannot be taken up", async () => {
  await writeFile(sectionPath(), "{");
  await takeUp();
  const { arrival, ended } = arrive("prepared", "paused");
  await ended;
  expect(log).toEqual(["record refused", "discard"]);
  expect(arrival.handOver.failure.code).toBe("dest-qemu-failed");
});

test("a guest of which no memory was arriving is complete at once", async () => {
  expect(await takeUp()).toEqual([]);
  const { ended } = arrive("taken", "running");
  await ended;
  expect(log).toEqual(["record complete", "keep"]);
});

test("an agent that cannot say which guests there are does not go on", async () => {
  await rm(join(root, "guests"), { recursive: true });
  expect(await takeUp()).toEqual([]);
  await writeFile(join(root, "guests"), "");
  await expect(takeUp()).rejects.toMatchObject({ code: "ENOTDIR" });
});

// A guest that arrives in this life of the agent, and whose QEMU lets go of its first stream.
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, ManualClock, PageSet } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { CloseCode, decodePageMessage } from "@vmferry/protocol";
import { guestPaths, PAGE_BYTES, StandbyMonitor } from "@vmferry/qemu";
import { afterEach, beforeEach, expect, test } from "vitest";
import { keepSection } from "../adapters/kept-section.ts";
import { openFetching } from "../postcopy/fetching.ts";
import type { WholeMemory } from "../postcopy/page-fetch.ts";
import { CLAIM, FakeQemu, GUEST, later, muchTime, SECTION } from "./memory-bench.ts";
import { MemoryFetch } from "./memory-fetch.ts";

const PAGES = SECTION.blocks[0]!.lengthBytes / PAGE_BYTES;

let root: string;
let directory: string;
let clock: ManualClock;
let qemu: FakeQemu;
let monitor: StandbyMonitor;
let open: MemoryFetch;
/** The way of pages into QEMU. */
let shut: Deferred;
let isGone: boolean;
/** Why memory is lost, and null where it is not any more. */
let told: (string | null)[];
let whole: WholeMemory | null;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "vmferry-fetch-"));
  directory = join(root, "guests", GUEST);
  await mkdir(directory, { recursive: true });
  clock = new ManualClock();
});

afterEach(async () => {
  open.close();
  await monitor.close();
  await qemu.close();
  await rm(root, { recursive: true });
});

/** Its QEMU lacks all of it. */
async function arriving(): Promise<MemoryFetch> {
  qemu = await FakeQemu.open(directory);
  qemu.lacksMemory = true;
  await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: false });
  [shut, isGone, told, whole] = [new Deferred(), false, [], null];
  const logger = createLogger({ role: "dest", level: "silent" });
  const ports = { guestsDir: join(root, "guests"), runDir: root, sharedDir: null, clock, logger };
  const fetch = MemoryFetch.arriving(
    { ...ports, onPageFault: () => undefined },
    {
      ...{ guest: GUEST, claim: CLAIM, fileKey: null, compression: true, maySayAll: true },
      ...{ onFileTrouble: () => undefined, onFileComplete: () => undefined },
      onLost: (lost) => told.push(lost === null ? null : lost.message),
    },
  );
  open = fetch;
  const missing = new PageSet(SECTION.blocks);
  for (let page = 0; page < PAGES; page++) missing.add(0, page);
  const sink = { write: () => Promise.resolve() };
  const fetching = openFetching({
    ...{ section: SECTION, missing, hashes: null, sink, shut: shut.promise, clock },
    urgentSink: null,
    close: () => Promise.resolve(),
  });
  // As an agent has it open for as long as it lives.
  const standby = await StandbyMonitor.goOn({ path: guestPaths(directory).standby });
  monitor = standby;
  const qmp = { execute: () => Promise.reject(new Error("it waits for a page")) };
  fetch.begin(fetching, { qmp, standby, isRunning: () => !isGone });
  void fetch
    .whole((lost) => told.push(lost === null ? null : lost.message))
    .then((memory) => {
      whole = memory;
    });
  return fetch;
}

function letGo(): void {
  shut.reject(new Error("QEMU takes no more pages"));
}

test("is taken up at once, which nobody is told of, and is whole in the end", async () => {
  const fetch = await arriving();
  letGo();
  await later(clock, () => qemu.listens === 1);
  await muchTime(clock);
  expect([told, fetch.missingPages, fetch.isWhole]).toEqual([[], PAGES, false]);
  qemu.lacksMemory = false;
  qemu.dropConnections();
  await later(clock, () => whole !== null);
  expect(whole).toEqual({ ramDigest: null, equal: null });
  await expect(stat(join(directory, "ram-section.json"))).rejects.toMatchObject({ code: "ENOENT" });
});

test("is told to be lost while that does not work, and tried again until it does", async () => {
  const fetch = await arriving();
  qemu.refusal = "no";
  letGo();
  await later(clock, () => fetch.lost !== null);
  expect([told.at(-1), fetch.missingPages]).toEqual([fetch.lost!.message, PAGES]);
  qemu.refusal = null;
  await later(clock, () => fetch.lost === null);
  expect(told.at(-1)).toBeNull();
});

test("is told to be lost where QEMU lets go of every stream", async () => {
  const fetch = await arriving();
  letGo();
  await later(clock, () => qemu.listens === 1);
  await later(clock, () => {
    qemu.dropConnections();
    return fetch.lost !== null;
  });
});

test("has its source dial anew meanwhile, to which its lanes go then", async () => {
  const fetch = await arriving();
  const codes: CloseCode[] = [];
  const said: string[] = [];
  const link = {
    send: (bytes: Buffer, flushed: () => void) => {
      said.push(decodePageMessage(bytes).kind);
      flushed();
    },
    listen: () => undefined,
    close: (code: CloseCode) => void codes.push(code),
  };
  fetch.attachPages("urgent", 1, link);
  fetch.attachPages("background", 1, link);
  qemu.refusal = "no";
  letGo();
  await later(clock, () => fetch.lost !== null);
  fetch.attachPages("urgent", 2, link);
  const { SESSION_ENDED, SESSION_UNKNOWN } = CloseCode;
  expect(codes).toEqual([SESSION_ENDED, SESSION_ENDED, SESSION_UNKNOWN]);
  qemu.refusal = null;
  await later(clock, () => fetch.lost === null);
  said.length = 0;
  fetch.attachPages("urgent", 3, link);
  fetch.attachPages("background", 3, link);
  expect(said).toContain("missing");
});

test("is not taken up where its QEMU is gone, nor where nobody wants it", async () => {
  await arriving();
  isGone = true;
  letGo();
  await muchTime(clock);
  expect([qemu.listens, told]).toEqual([0, []]);
});

import { beforeEach, describe, expect, test } from "vitest";
import { ManualClock, PageHashes, PageSet } from "@vmferry/agent";
import { FrameKind, limits, openFrame, RunTable, sealFrame } from "@vmferry/protocol";
import type { DrainLink, DrainStart } from "./drain.ts";
import type { FrameQueue } from "./frame-collector.ts";
import { RamSender } from "./ram-sender.ts";
import type { OutboundEntry, OutboundFrame } from "../transport/bulk-sender.ts";

const { FRAME_HEADER_BYTES, PAGE_BYTES } = limits;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 2000 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];
const SEED = "00112233445566ff";
const DEVICES = Buffer.from("device sections");

/** Reads what is queued at once: kinds of frames in their order, and the runs of MISSING. */
class Recorder implements FrameQueue {
  readonly kinds: string[] = [];
  readonly missing: string[] = [];
  readonly sent: string[] = [];
  stream = "";
  #sequence = 0;

  enqueue(entry: OutboundEntry): void {
    if ("barrierOfPass" in entry) this.kinds.push("barrier");
    else if ("call" in entry) entry.call();
    else if ("view" in entry) this.#frame(entry);
    else if ("next" in entry) {
      for (let frame = entry.next(); frame !== null; frame = entry.next()) this.#frame(frame);
    }
  }

  #frame({ view, kind, encoding, pass, block, runs }: OutboundFrame): void {
    sealFrame(view, { kind, encoding, pass, sequence: this.#sequence++, block, runs });
    const header = openFrame(view);
    const name = Object.entries(FrameKind).find(([, value]) => value === kind)![0];
    if (this.kinds.at(-1) !== name) this.kinds.push(name);
    if (kind === FrameKind.STREAM) this.stream += view.toString("latin1", FRAME_HEADER_BYTES);
    if (kind !== FrameKind.MISSING && kind !== FrameKind.PAGES) return;
    const table = new RunTable();
    table.open(view, header, BLOCKS[block]!.lengthBytes / PAGE_BYTES);
    for (let run = 0; run < table.count; run++) {
      const range = `${block}.${table.first(run)}+${table.pages(run)}`;
      (kind === FrameKind.MISSING ? this.missing : this.sent).push(range);
    }
  }
}

/** Remembers what was put. */
class Store {
  readonly pages = new PageSet(BLOCKS);
  readonly contents = new Map<string, string>();

  put(block: number, page: number, source: Buffer, offset: number): void {
    this.pages.add(block, page);
    this.contents.set(`${block}.${page}`, source.toString("latin1", offset, offset + 4));
  }

  isZero(block: number, number: number): boolean {
    return this.contents.get(`${block}.${number}`) === "zero";
  }

  written(): Promise<void> {
    return Promise.resolve();
  }

  readWritten(block: number, number: number, into: Buffer): boolean {
    into.fill(this.contents.get(`${block}.${number}`)!);
    return true;
  }

  putZero(block: number, page: number): void {
    this.pages.add(block, page);
    this.contents.set(`${block}.${page}`, "zero");
  }
}

let out: Recorder;
let store: Store;
let sender: RamSender;
let digests: string[];

const page = (block: number, number: number, content: string): void => {
  sender.page(block, number, Buffer.alloc(PAGE_BYTES, content), 0);
};

function drain(start: DrainStart = "second-pass", link: DrainLink | null = null): void {
  const deviceState = (bytes: Uint8Array): Buffer | null => (bytes.length === 0 ? null : DEVICES);
  sender.drain({ store, start, deviceState, link });
}

/** Of the first pass page 1 of the other block has come. */
function drainInSecondPass(): void {
  page(1, 1, "a");
  page(1, 1, "a");
  drain();
}

beforeEach(() => {
  out = new Recorder();
  store = new Store();
  digests = [];
  const onRamSent = (digest: string): number => digests.push(digest);
  sender = new RamSender({ out, clock: new ManualClock(), hashSeed: SEED, onRamSent });
  sender.ramStart({ blocks: BLOCKS });
});

describe("a sender that drains QEMU", () => {
  test("stores every page, in its latest content, and sends none any more", () => {
    page(0, 1, "a");
    drain();
    page(0, 1, "b");
    page(0, 2, "b");
    sender.zeroPage(0, 3);
    page(0, 2, "c");
    sender.flush();
    expect(out.sent).toEqual(["0.1+1"]);
    const stored = { "0.1": "bbbb", "0.2": "cccc", "0.3": "zero" };
    expect(Object.fromEntries(store.contents)).toEqual(stored);
    expect(sender.storedBytes).toBe(3 * PAGE_BYTES);
  });

  test("stores what is left of the first pass as well where the guest shall go now", () => {
    page(0, 1, "a");
    drain("now");
    page(0, 2, "a");
    sender.zeroPage(0, 3);
    sender.flush();
    expect(out.sent).toEqual(["0.1+1"]);
    expect(Object.fromEntries(store.contents)).toEqual({ "0.2": "aaaa", "0.3": "zero" });
    page(0, 1, "b");
    page(0, 2, "b");
    expect(Object.fromEntries(store.contents)).toMatchObject({ "0.1": "bbbb", "0.2": "bbbb" });
  });

  test("does so as soon as it shall go, where it would have begun with the second pass", () => {
    page(0, 1, "a");
    drain();
    page(0, 2, "a");
    sender.drainNow();
    page(0, 3, "a");
    sender.flush();
    expect(out.sent).toEqual(["0.1+2"]);
    expect(Object.fromEntries(store.contents)).toEqual({ "0.3": "aaaa" });
  });

  test("misses what it had held back", () => {
    sender.setHeldBytesMax(100 * PAGE_BYTES);
    for (const content of ["a", "b", "c", "d"]) page(0, 7, content);
    expect(sender.heldBytes).toBe(PAGE_BYTES);
    drain();
    expect(sender.heldBytes).toBe(0);
    expect(store.contents.get("0.7")).toBe("dddd");
  });

  test("tells what is missing in a pass of its own, then all of device state", () => {
    page(0, 1, "a");
    drainInSecondPass();
    for (let number = 0; number < 1400; number += 2) page(0, number, "b");
    sender.zeroPage(1, 3);
    sender.ramEnd();
    expect(digests).toEqual([]);
    sender.deviceState(Buffer.alloc(0));
    sender.deviceState(Buffer.from("x"));
    expect(out.kinds.slice(-4)).toEqual(["barrier", "MISSING", "POSTCOPY", "STREAM"]);
    expect(out.missing).toHaveLength(701);
    expect(out.missing.slice(-2)).toEqual(["0.1398+1", "1.3+1"]);
    expect(out.stream).toBe(DEVICES.toString());
    const expected = new PageHashes(BLOCKS, SEED);
    for (const index of [1, 2001]) {
      expected.set(index, expected.hash(Buffer.alloc(PAGE_BYTES, "a")));
    }
    expect(digests).toEqual([expected.digest()]);
  });

  test("tells of each page once, pass by pass, before the guest stands still", () => {
    drainInSecondPass();
    page(0, 1, "a");
    page(0, 2, "a");
    expect(out.missing).toEqual([]);
    page(0, 1, "b");
    expect(out.missing).toEqual(["0.1+2"]);
    page(0, 7, "b");
    sender.zeroPage(0, 2);
    sender.zeroPage(0, 7);
    expect(out.missing).toEqual(["0.1+2", "0.7+1"]);
    sender.ramEnd();
    expect(out.missing).toEqual(["0.1+2", "0.7+1"]);
  });

  test("does not queue more and more to tell while the link is away", () => {
    const queued: OutboundEntry[] = [];
    out.enqueue = (entry) => queued.push(entry);
    drainInSecondPass();
    const before = queued.length;
    for (let round = 0; round < 100; round++) page(0, round % 10, "a");
    expect(queued.length - before).toBeLessThanOrEqual(1);
    page(0, 20, "a");
    page(0, 5, "a");
    sender.ramEnd();
    out = new Recorder();
    for (const entry of queued) out.enqueue(entry);
    expect(out.missing).toEqual(["0.0+10", "0.20+1"]);
  });

  test("knows what the guest works on all the time, and what it has just worked on", async () => {
    page(0, 2, "a");
    drain();
    for (const content of ["b", "c", "d", "e"]) for (const at of [2, 5]) page(0, at, content);
    page(0, 3, "e");
    sender.stunned();
    for (const at of [5, 9]) page(0, at, "f");
    const hottest = await sender.hottestPages(10);
    expect(hottest).toEqual([5, 2, 9, 3].map((at) => ({ block: 0, page: at })));
  });

  test("sends what is left of the first pass, for the guest may not write to it for long", () => {
    page(0, 1, "a");
    drain();
    page(0, 2, "a");
    sender.zeroPage(0, 3);
    expect(sender.drainStage).toBe(null);
    page(0, 1, "b");
    expect(sender.drainStage).toBe("telling");
    page(0, 4, "b");
    sender.ramEnd();
    expect(out.sent).toEqual(["0.1+2", "0.3+1"]);
    expect([...store.contents.keys()]).toEqual(["0.1", "0.4"]);
    expect(out.missing).toEqual(["0.1+1", "0.4+1"]);
  });

  test("misses nothing of a guest whose first pass was the last", () => {
    page(0, 1, "a");
    drain();
    page(0, 2, "a");
    sender.ramEnd();
    sender.deviceState(Buffer.from("x"));
    expect(out.sent).toEqual(["0.1+2"]);
    expect(out.missing).toEqual([]);
    expect(out.kinds.slice(-2)).toEqual(["POSTCOPY", "STREAM"]);
  });

  test("counts what it has served after the hand-over", () => {
    drain();
    page(0, 1, "b");
    sender.zeroPage(0, 2);
    sender.ramEnd();
    sender.deviceState(Buffer.from("x"));
    sender.served(0, 1, Buffer.alloc(PAGE_BYTES, "b"));
    sender.servedZero(0, 2);
    const expected = new PageHashes(BLOCKS, SEED);
    expected.set(1, expected.hash(Buffer.alloc(PAGE_BYTES, "b")));
    expected.set(2, expected.zeroHash);
    expect(sender.digest()).toBe(expected.digest());
  });
});

describe("a sender that drains QEMU from the first pass on", () => {
  const link = { hasRoom: true, isShared: false };

  beforeEach(() => {
    link.hasRoom = true;
    link.isShared = false;
    page(0, 0, "a");
    drain("outrun", link);
  });

  test("stores at once what the dest was not sent, but for zeros", () => {
    page(0, 1, "a");
    sender.zeroPage(0, 2);
    sender.flush();
    expect(sender.drainStage).toBe("shared");
    expect(out.sent).toEqual(["0.0+1", "0.2+1"]);
    expect([...store.contents.keys()]).toEqual(["0.1"]);
  });

  test("sends of the first pass what the link has room for, where that is shared", () => {
    link.isShared = true;
    page(0, 1, "a");
    link.hasRoom = false;
    page(0, 2, "a");
    link.hasRoom = true;
    page(0, 3, "a");
    page(0, 0, "b");
    page(0, 4, "b");
    sender.flush();
    expect(sender.drainStage).toBe("counting");
    expect(out.sent).toEqual(["0.0+2", "0.3+1"]);
    expect([...store.contents.keys()]).toEqual(["0.2", "0.0", "0.4"]);
  });

  /** Of 300 pages and the other block the first 200 and one more come a second time, one a third time. */
  function passTwice(): void {
    for (let each = 1; each < 300; each++) page(0, each, "a");
    for (let each = 0; each < 4; each++) page(1, each, "a");
    for (let each = 0; each < 200; each++) page(0, each, "b");
    page(0, 250, "b");
    page(0, 0, "c");
  }

  test("sends what the second pass did not bring, the last of memory first, and misses it no more", () => {
    passTwice();
    sender.beginCold();
    expect(sender.drainStage).toBe("cold");
    expect(out.missing).toEqual([]);
    while (sender.fillCold());
    expect(sender.drainStage).toBe("telling");
    expect(out.sent).toEqual(["0.0+1", "1.0+4", "0.256+44", "0.192+20", "0.212+44"]);
    expect(out.missing).toEqual(["0.0+192"]);
  });

  test("sends no page that came since, for the store may not have it yet", () => {
    passTwice();
    page(0, 270, "c");
    sender.beginCold();
    page(0, 260, "c");
    while (sender.fillCold());
    expect(out.sent.slice(2, 5)).toEqual(["0.256+4", "0.261+9", "0.271+29"]);
    expect(out.missing).toEqual(["0.0+192", "0.260+1", "0.270+1"]);
  });

  test("leaves it to the link how much of that goes out, and misses the rest", () => {
    passTwice();
    sender.beginCold();
    link.hasRoom = false;
    sender.fillCold();
    sender.endCold();
    expect(out.sent).toEqual(["0.0+1"]);
    expect(out.missing).toEqual(["0.0+300", "1.0+4"]);
  });

  test("misses a page that comes again behind its own sending", () => {
    passTwice();
    sender.beginCold();
    while (sender.fillCold());
    page(0, 280, "c");
    sender.ramEnd();
    expect(out.missing).toEqual(["0.0+192", "0.280+1"]);
  });

  test("misses what is left where the guest is stunned before that is over", () => {
    passTwice();
    sender.ramEnd();
    expect(out.missing).toEqual(["0.0+300", "1.0+4"]);
    expect(out.kinds.at(-1)).toBe("MISSING");
  });

  test("has no pass with both pages and missing ones", () => {
    passTwice();
    sender.beginCold();
    while (sender.fillCold());
    const between = out.kinds.slice(out.kinds.lastIndexOf("PAGES"));
    expect(between).toEqual(["PAGES", "barrier", "MISSING"]);
  });

  test("sends each of them once, though whoever takes a frame asks for more at once", () => {
    passTwice();
    const enqueue = out.enqueue.bind(out);
    out.enqueue = (entry) => {
      enqueue(entry);
      sender.fillCold();
    };
    sender.beginCold();
    while (sender.fillCold());
    expect(out.sent).toEqual(["0.0+1", "1.0+4", "0.256+44", "0.192+20", "0.212+44"]);
    expect(out.missing).toEqual(["0.0+192"]);
  });

  test("stores zeros as well while the link takes nothing", () => {
    link.hasRoom = false;
    sender.zeroPage(0, 2);
    expect(store.contents.get("0.2")).toBe("zero");
  });
});

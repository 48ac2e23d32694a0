import { beforeEach, describe, expect, test } from "vitest";
import { ManualClock, PageHashes, PageSet } from "@vmferry/agent";
import { FrameKind, limits, openFrame, RunTable, sealFrame } from "@vmferry/protocol";
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

function drain(): void {
  const deviceState = (bytes: Uint8Array): Buffer | null => (bytes.length === 0 ? null : DEVICES);
  sender.drain({ store, deviceState });
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
    expect(hottest).toEqual([5, 2, 9].map((at) => ({ block: 0, page: at })));
  });

  test("sends what is left of the first pass, for the guest may not write to it for long", () => {
    page(0, 1, "a");
    drain();
    page(0, 2, "a");
    sender.zeroPage(0, 3);
    expect(sender.isDraining).toBe(false);
    page(0, 1, "b");
    expect(sender.isDraining).toBe(true);
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

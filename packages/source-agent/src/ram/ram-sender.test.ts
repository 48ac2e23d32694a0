import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { ManualClock, PageHashes } from "@vmferry/agent";
import { FrameKind, limits, openFrame, RunTable, sealFrame } from "@vmferry/protocol";
import type { FrameQueue } from "./frame-collector.ts";
import { RamSender } from "./ram-sender.ts";
import type { OutboundEntry, OutboundFrame } from "../transport/bulk-sender.ts";

const { FRAME_HEADER_BYTES, FRAME_STREAM_BYTES_MAX, PAGE_BYTES } = limits;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 400 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];
const HASH_SEED = "00112233445566ff";
const MIB = 2 ** 20;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

/** What was queued, readable: `block.page=content`, zero pages with content 0. */
type Queued =
  | { readonly pass: number; readonly pages: readonly string[] }
  | { readonly pass: number; readonly stream: string }
  | { readonly barrier: number }
  | { readonly pass: number; readonly ramEnd: true };

function contentPage(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, content === 0 ? 0 : `content ${content} `);
}

/** Reads what is queued at once, as a link that is never busy. */
class Recorder implements FrameQueue {
  readonly queued: Queued[] = [];
  #sequence = 0;

  enqueue(entry: OutboundEntry): void {
    if ("barrierOfPass" in entry) this.queued.push({ barrier: entry.barrierOfPass });
    else if ("call" in entry) entry.call();
    else if ("view" in entry) this.#frame(entry);
    else if ("diskEnd" in entry) throw new Error("memory says nothing of disks");
    else for (let frame = entry.next(); frame !== null; frame = entry.next()) this.#frame(frame);
  }

  /** Takes what was queued so far. */
  take(): Queued[] {
    return this.queued.splice(0);
  }

  #frame(frame: OutboundFrame): void {
    const { view, kind, encoding, pass, block, runs, flushed } = frame;
    sealFrame(view, { kind, encoding, pass, sequence: this.#sequence++, block, runs });
    if (kind === FrameKind.PAGES) this.queued.push({ pass, pages: pagesOf(view) });
    else if (kind === FrameKind.RAM_END) this.queued.push({ pass, ramEnd: true });
    else this.queued.push({ pass, stream: view.toString("latin1", FRAME_HEADER_BYTES) });
    // The buffer is used again: what was read of it must not change any more.
    view.fill(0xee);
    flushed();
  }
}

function pagesOf(view: Buffer): string[] {
  const header = openFrame(view);
  const table = new RunTable();
  table.open(view, header, BLOCKS[header.block]!.lengthBytes / PAGE_BYTES);
  const pages: string[] = [];
  let offset = table.dataOffset;
  for (let run = 0; run < table.count; run++) {
    for (let i = 0; i < table.pages(run); i++) {
      const name = `${header.block}.${table.first(run) + i}`;
      if (table.zero(run)) pages.push(`${name}=0`);
      else {
        const text = view.toString("latin1", offset, offset + PAGE_BYTES);
        pages.push(`${name}=${/^content (\d+) /.exec(text)?.[1] ?? "?"}`);
        offset += PAGE_BYTES;
      }
    }
  }
  return pages;
}

let out: Recorder;
let clock: ManualClock;
let digests: string[];
let sender: RamSender;

function page(block: number, number: number, content: number): void {
  if (content === 0) sender.zeroPage(block, number);
  else sender.page(block, number, contentPage(content), 0);
}

/** One pass of QEMU: each `[page, content]` of block 0 once. */
function pass(...pages: readonly (readonly [number, number])[]): void {
  for (const [number, content] of pages) page(0, number, content);
}

function allPages(queued: readonly Queued[]): string[] {
  return queued.flatMap((entry) => ("pages" in entry ? entry.pages : []));
}

beforeEach(() => {
  out = new Recorder();
  clock = new ManualClock();
  digests = [];
  const onRamSent = (digest: string): void => void digests.push(digest);
  sender = new RamSender({ out, clock, hashSeed: HASH_SEED, onRamSent });
});

describe("opaque bytes", () => {
  test("go as they are, in pieces that a frame takes", () => {
    const bytes = Buffer.alloc(FRAME_STREAM_BYTES_MAX + 5, "device ");
    sender.verbatim(bytes);
    const queued = out.take();
    expect(queued.map((entry) => ("stream" in entry ? entry.stream.length : -1))).toEqual([
      FRAME_STREAM_BYTES_MAX,
      5,
    ]);
    const text = queued.map((entry) => ("stream" in entry ? entry.stream : "")).join("");
    expect(text).toBe(bytes.toString());
  });

  test("never share a pass with pages", () => {
    sender.verbatim(Buffer.from("start"));
    sender.ramStart({ blocks: BLOCKS });
    pass([0, 1]);
    sender.verbatim(Buffer.from("command"));
    pass([1, 2]);
    sender.flush();
    expect(out.take()).toEqual([
      { pass: 0, stream: "start" },
      { barrier: 0 },
      { pass: 1, pages: ["0.0=1"] },
      { barrier: 1 },
      { pass: 2, stream: "command" },
      { barrier: 2 },
      { pass: 3, pages: ["0.1=2"] },
    ]);
  });
});

describe("pages", () => {
  beforeEach(() => {
    sender.ramStart({ blocks: BLOCKS });
  });

  test("are collected until a frame is full or somebody wants it out", () => {
    for (let i = 0; i < 70; i++) page(0, i, 1 + i);
    expect(out.take().slice(1)).toMatchObject([{ pages: { length: 64 } }]);
    sender.flush();
    expect(out.take()).toMatchObject([{ pages: { length: 6 } }]);
    sender.flush();
    expect(out.take()).toEqual([]);
  });

  test("of two blocks never share a frame", () => {
    page(0, 1, 5);
    page(1, 2, 6);
    page(0, 3, 7);
    sender.flush();
    const frames = out.take().flatMap((entry) => ("pages" in entry ? [entry.pages] : []));
    expect(frames).toEqual([["0.1=5"], ["1.2=6"], ["0.3=7"]]);
  });

  test("that come again end the pass, so that the later content comes later", () => {
    pass([1, 5], [2, 6]);
    pass([1, 7]);
    sender.flush();
    expect(out.take().slice(1)).toEqual([
      { pass: 1, pages: ["0.1=5", "0.2=6"] },
      { barrier: 1 },
      { pass: 2, pages: ["0.1=7"] },
    ]);
    expect(sender.counters.pass).toBe(2);
  });

  test("that are zero travel without data, and only when that is news", () => {
    pass([1, 0], [2, 0], [3, 9]);
    pass([1, 0], [2, 4], [3, 0]);
    sender.flush();
    expect(allPages(out.take())).toEqual(["0.1=0", "0.2=0", "0.3=9", "0.2=4", "0.3=0"]);
    expect(sender.counters).toMatchObject({ zeroPages: 3, sentPages: 2, unchangedPages: 1 });
  });

  test("that are zero are news even when nothing was sent of them before", () => {
    pass([7, 0]);
    sender.flush();
    expect(allPages(out.take())).toEqual(["0.7=0"]);
  });

  test("with nothing but zero bytes in them count like those that QEMU calls zero", () => {
    pass([1, 0]);
    sender.page(0, 1, Buffer.alloc(PAGE_BYTES), 0);
    sender.flush();
    expect(allPages(out.take())).toEqual(["0.1=0"]);
    expect(sender.counters.unchangedPages).toBe(1);
  });

  test("that hold what was sent last are not sent again", () => {
    pass([1, 5]);
    pass([1, 5]);
    pass([1, 6]);
    pass([1, 5]);
    sender.flush();
    expect(allPages(out.take())).toEqual(["0.1=5", "0.1=6", "0.1=5"]);
    expect(sender.counters.unchangedPages).toBe(1);
  });

  test("are copied: QEMU's buffer may be used again at once", () => {
    const chunk = Buffer.concat([Buffer.alloc(8), contentPage(3)]);
    sender.page(0, 0, chunk, 8);
    chunk.fill(0xff);
    sender.flush();
    expect(allPages(out.take())).toEqual(["0.0=3"]);
  });
});

describe("pages that keep coming", () => {
  beforeEach(() => {
    sender.ramStart({ blocks: BLOCKS });
    sender.setHeldBytesMax(MIB);
  });

  /** Four passes in which these pages come: hot from the third on. */
  function heatUp(...pages: readonly number[]): void {
    for (let round = 0; round < 4; round++) {
      pass(...pages.map((number) => [number, 100 + round] as const));
      clock.advance(10);
    }
  }

  test("are held once they are hot, and their latest content is sent at the end", () => {
    heatUp(1, 2);
    expect(sender.heldBytes).toBe(2 * PAGE_BYTES);
    // The first pass, and the second, in which they were not hot yet.
    expect(sender.counters).toMatchObject({ sentPages: 4, cameAgainPages: 6 });
    out.take();
    sender.ramEnd();
    expect(allPages(out.take())).toEqual(["0.1=103", "0.2=103"]);
    expect(sender.heldBytes).toBe(0);
  });

  test("are counted, those that were held already among them", () => {
    heatUp(1, 2, 3);
    const before = { ...sender.counters };
    // A zero page ends the pass.
    pass([9, 0]);
    pass([9, 0], [1, 7], [2, 7], [20, 7]);
    expect(sender.counters.cameAgainPages - before.cameAgainPages).toBe(3);
    expect(sender.counters.cameHeldPages - before.cameHeldPages).toBe(2);
  });

  test("are sent as they come when nothing may be held", () => {
    sender.setHeldBytesMax(0);
    heatUp(1);
    sender.flush();
    expect(sender.heldBytes).toBe(0);
    expect(allPages(out.take())).toEqual(["0.1=100", "0.1=101", "0.1=102", "0.1=103"]);
  });

  test("are held as far as the limit allows, the others are sent", () => {
    sender.setHeldBytesMax(2 * PAGE_BYTES + 4095);
    heatUp(1, 2, 3);
    sender.flush();
    expect(sender.heldBytes).toBe(2 * PAGE_BYTES);
    expect(allPages(out.take()).filter((each) => each.startsWith("0.3="))).toHaveLength(4);
  });

  test("leave when neither a pass nor 200 ms brought them again", () => {
    heatUp(1);
    clock.advance(250);
    pass([5, 0]);
    out.take();
    pass([5, 0]);
    sender.flush();
    expect(sender.heldBytes).toBe(0);
    expect(allPages(out.take())).toContain("0.1=103");
  });

  test("leave pass by pass when less may be held than is", () => {
    heatUp(1, 2, 3);
    sender.setHeldBytesMax(PAGE_BYTES);
    pass([9, 0]);
    sender.flush();
    expect(sender.heldBytes).toBe(3 * PAGE_BYTES);
    out.take();
    pass([9, 0]);
    sender.flush();
    expect(sender.heldBytes).toBe(PAGE_BYTES);
    expect(allPages(out.take())).toEqual(["0.1=103", "0.2=103"]);
  });

  test("that begin a pass are not sent twice in it when less may be held", () => {
    heatUp(1, 2);
    sender.setHeldBytesMax(0);
    out.take();
    pass([1, 200]);
    sender.flush();
    const pages = allPages(out.take());
    expect(pages.filter((each) => each.startsWith("0.1="))).toEqual(["0.1=200"]);
  });

  test("become zero and are held no longer", () => {
    heatUp(1);
    out.take();
    pass([1, 0]);
    sender.ramEnd();
    expect(allPages(out.take())).toEqual(["0.1=0"]);
  });

  test("are sent as they come from the stun on, in place of what is held", () => {
    heatUp(1, 2);
    sender.stunned();
    out.take();
    pass([1, 300]);
    sender.ramEnd();
    expect(allPages(out.take())).toEqual(["0.1=300", "0.2=103"]);
  });
});

describe("the end of RAM", () => {
  test("comes after every page, and the digest covers what was sent", () => {
    sender.verbatim(Buffer.from("start"));
    sender.ramStart({ blocks: BLOCKS });
    sender.setHeldBytesMax(MIB);
    for (let round = 0; round < 4; round++) pass([1, 10 + round], [2, 5], [3, 0]);
    page(1, 3, 77);
    sender.ramEnd();
    sender.deviceState(Buffer.from("devices"));
    const queued = out.take();
    const tail = queued.slice(
      queued.findIndex((entry) => "pages" in entry && entry.pages.includes("0.1=13")),
    );
    const end = tail[0] as { pass: number };
    expect(tail).toEqual([
      { pass: end.pass, pages: ["0.1=13"] },
      { barrier: end.pass },
      { pass: end.pass + 1, ramEnd: true },
      { pass: end.pass + 1, stream: "devices" },
    ]);
    const hashes = new PageHashes(BLOCKS, HASH_SEED);
    const contents = [
      [0, 1, 13],
      [0, 2, 5],
      [0, 3, 0],
      [1, 3, 77],
    ] as const;
    for (const [block, number, content] of contents) {
      hashes.set(hashes.indexOf(block, number), hashes.hash(contentPage(content)));
    }
    expect(digests).toEqual([hashes.digest()]);
  });

  test("comes even when there was nothing to send", () => {
    sender.ramStart({ blocks: BLOCKS });
    sender.ramEnd();
    expect(out.take().at(-1)).toMatchObject({ ramEnd: true });
    expect(digests).toHaveLength(1);
  });

  test("brings held pages of several blocks, in frames of one block each", () => {
    sender.ramStart({ blocks: BLOCKS });
    sender.setHeldBytesMax(MIB);
    for (let round = 0; round < 4; round++) {
      for (let i = 0; i < 150; i++) page(0, i, 1 + ((i + round) % 50));
      for (let i = 0; i < 3; i++) page(1, i, 60 + round);
    }
    out.take();
    sender.ramEnd();
    const frames = out.take().flatMap((entry) => ("pages" in entry ? [entry.pages] : []));
    expect(frames.map(({ length }) => length)).toEqual([64, 64, 22, 3]);
    expect(frames[3]).toEqual(["1.0=63", "1.1=63", "1.2=63"]);
  });
});

describe("every pass", () => {
  test(`names a page once at most, whatever may be held and however long it takes (SEED=${seed})`, () => {
    const step = fc.record({
      pages: fc.uniqueArray(fc.nat(11), { maxLength: 12 }),
      heldPagesMax: fc.nat(8),
      tookMs: fc.constantFrom(0, 1, 90, 250),
      zeroShare: fc.constantFrom(0, 7),
    });
    const property = fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      out = new Recorder();
      sender = new RamSender({ out, clock, hashSeed: HASH_SEED, onRamSent: () => undefined });
      sender.ramStart({ blocks: BLOCKS });
      const memory = new Map<string, string>();
      let content = 1;
      for (const { pages, heldPagesMax, tookMs, zeroShare } of steps) {
        sender.setHeldBytesMax(heldPagesMax * PAGE_BYTES);
        for (const number of pages) {
          const isZero = zeroShare !== 0 && content % zeroShare === 0;
          page(0, number, isZero ? 0 : content);
          memory.set(`0.${number}`, isZero ? "0" : `${content}`);
          content++;
        }
        clock.advance(tookMs);
      }
      sender.stunned();
      sender.ramEnd();
      expect(rebuilt(out.take())).toEqual(memory);
    });
    fc.assert(property, { seed, numRuns: 150 });
  });

  /** The memory that the dest would have, and a complaint about a page that a pass names twice. */
  function rebuilt(queued: readonly Queued[]): Map<string, string> {
    const memory = new Map<string, string>();
    let named = new Set<string>();
    for (const entry of queued) {
      if ("barrier" in entry) named = new Set();
      for (const each of "pages" in entry ? entry.pages : []) {
        const [name, content] = each.split("=") as [string, string];
        if (named.has(name)) throw new Error(`page ${name} twice in a pass`);
        named.add(name);
        memory.set(name, content);
      }
    }
    return memory;
  }
});

describe("a stream out of order", () => {
  test("is our own bug: RAM announced twice, or pages before it was", () => {
    expect(() => {
      page(0, 0, 1);
    }).toThrow("pages come after RAM was announced");
    sender.ramStart({ blocks: BLOCKS });
    expect(() => {
      sender.ramStart({ blocks: BLOCKS });
    }).toThrow("RAM is announced once");
  });

  test("knows how much RAM there is as soon as it was announced", () => {
    expect(sender.totalBytes).toBe(0);
    sender.ramStart({ blocks: BLOCKS });
    expect(sender.totalBytes).toBe(404 * PAGE_BYTES);
  });
});

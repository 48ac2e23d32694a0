import { PageHashes, PageSet } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import {
  encodePostcopyResume,
  PAGE_BYTES,
  PreemptDecoder,
  StreamDecoder,
  type StreamPhase,
} from "@vmferry/qemu";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { StreamSink } from "../ram/qemu-sink.ts";
import { QemuPagePlacer } from "./qemu-page-placer.ts";

const SEED = "00112233445566ff";
const SECTION = {
  sectionId: 3,
  blocks: [
    { name: "pc.ram", lengthBytes: 3000 * PAGE_BYTES },
    { name: "/rom@etc/acpi/tables", lengthBytes: 200 * PAGE_BYTES },
  ],
};

/** A QEMU in post-copy: takes a page once, and whole sections alone. */
class PickyQemu implements StreamSink {
  readonly placed = new Map<string, string>();
  readonly twice: string[] = [];
  /** Writes that were not told to be done. */
  readonly held: (() => void)[] = [];
  hold = false;
  /** Its other connection, and what came by that. */
  readonly urgent: StreamSink = { write: (bytes, done) => this.#writeUrgent(bytes, done) };
  readonly urgentPages = new Set<string>();
  readonly #pages = {
    page: (block: number, page: number, buffer: Buffer, offset: number) => {
      this.#place(block, page, buffer.toString("latin1", offset, offset + 20));
    },
    zeroPage: (block: number, page: number) => {
      this.#place(block, page, "zero");
    },
  };
  readonly #decoder = new StreamDecoder(
    {
      verbatim: () => undefined,
      ramStart: () => undefined,
      partEnd: () => undefined,
      ramEnd: () => undefined,
      deviceState: () => undefined,
      ...this.#pages,
    },
    {},
    SECTION,
  );
  readonly #urgentDecoder = new PreemptDecoder(SECTION.blocks, this.#pages);

  constructor() {
    this.#decoder.push(encodePostcopyResume());
  }

  get phase(): StreamPhase {
    return this.#decoder.phase;
  }

  async write(bytes: Uint8Array, done: () => void): Promise<void> {
    this.#decoder.push(Buffer.from(bytes));
    if (!this.hold) {
      setImmediate(done);
      return;
    }
    await new Promise<void>((resolve) => {
      this.held.push(() => {
        done();
        resolve();
      });
    });
  }

  #writeUrgent(bytes: Uint8Array, done: () => void): Promise<void> {
    const before = new Set(this.placed.keys());
    this.#urgentDecoder.push(Buffer.from(bytes));
    this.#urgentDecoder.end();
    for (const key of this.placed.keys()) if (!before.has(key)) this.urgentPages.add(key);
    setImmediate(done);
    return Promise.resolve();
  }

  #place(block: number, page: number, content: string): void {
    const key = `${block}:${page}`;
    if (this.placed.has(key)) this.twice.push(key);
    this.placed.set(key, content);
  }
}

function open(options: { readonly hashes?: PageHashes; readonly isUrgent?: boolean } = {}): {
  readonly qemu: PickyQemu;
  readonly placer: QemuPagePlacer;
  /** QEMU has asked for these. */
  readonly asked: Set<string>;
  readonly shut: Deferred;
  readonly told: string[];
} {
  const qemu = new PickyQemu();
  const missing = new PageSet(SECTION.blocks);
  for (let page = 0; page < 3000; page++) missing.add(0, page);
  for (let page = 0; page < 200; page++) missing.add(1, page);
  const shut = new Deferred();
  const told: string[] = [];
  const asked = new Set<string>();
  const placer = new QemuPagePlacer({
    section: SECTION,
    missing,
    hashes: options.hashes ?? null,
    sink: qemu,
    urgentSink: options.isUrgent === false ? null : qemu.urgent,
    isAsked: (block, page) => asked.has(`${block}:${page}`),
    onPlaced: (block, page) => told.push(`${block}:${page}`),
    shut: shut.promise,
  });
  return { qemu, placer, asked, shut, told };
}

function contentOf(block: number, page: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, `${block}/${page} `.padEnd(20, "."));
}

describe("a page placer", () => {
  it("places every page once and whole, whatever the order and whoever flushes meanwhile", async () => {
    const step = fc.record({
      block: fc.nat(1),
      page: fc.nat(199),
      zero: fc.boolean(),
      flush: fc.boolean(),
      isAsked: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 300 }), async (steps) => {
        const { qemu, placer, asked, told } = open();
        const flushes: Promise<void>[] = [];
        const expected = new Map<string, string>();
        for (const { block, page, zero, flush, isAsked } of steps) {
          if (placer.missing.has(block, page)) {
            if (isAsked) asked.add(`${block}:${page}`);
            const content = contentOf(block, page);
            expected.set(`${block}:${page}`, zero ? "zero" : content.toString("latin1", 0, 20));
            if (zero) placer.zeroPage(block, page);
            else placer.page(block, page, Buffer.concat([Buffer.alloc(7), content]), 7);
          }
          if (flush) flushes.push(placer.flush());
        }
        await Promise.all([...flushes, placer.flush()]);
        expect(qemu.twice).toEqual([]);
        expect(qemu.urgentPages).toEqual(asked);
        expect(qemu.placed).toEqual(expected);
        expect(new Set(told)).toEqual(new Set(expected.keys()));
        expect(placer.missing.count).toBe(3200 - expected.size);
      }),
      { numRuns: 50 },
    );
  });

  it("does without a channel for what is asked for", async () => {
    const { qemu, placer, asked } = open({ isUrgent: false });
    asked.add("0:1").add("1:2");
    placer.page(0, 1, contentOf(0, 1), 0);
    placer.zeroPage(1, 2);
    await placer.flush();
    expect([...qemu.placed.keys()]).toEqual(["0:1", "1:2"]);
    expect(qemu.urgentPages.size).toBe(0);
  });

  it("takes thousands of zero pages between two flushes", async () => {
    const { qemu, placer } = open();
    for (let page = 0; page < 3000; page++) placer.zeroPage(0, page);
    await placer.flush();
    expect(qemu.placed.size).toBe(3000);
  });

  it("copies what it collects", async () => {
    const { qemu, placer } = open();
    const buffer = contentOf(0, 1);
    placer.page(0, 1, buffer, 0);
    buffer.fill(0xee);
    await placer.flush();
    expect(qemu.placed.get("0:1")).toMatch(/^0\/1 /);
  });

  it("hands over what is flushed at once, and waits for room only afterwards", async () => {
    const { qemu, placer } = open();
    qemu.hold = true;
    placer.page(0, 1, contentOf(0, 1), 0);
    const background = placer.flush();
    placer.page(1, 7, contentOf(1, 7), 0);
    const urgent = placer.flush();
    expect([...qemu.placed.keys()]).toEqual(["0:1", "1:7"]);
    for (const release of qemu.held) release();
    await Promise.all([background, urgent]);
  });

  it("refuses a page that is not missing", () => {
    const { placer } = open();
    placer.zeroPage(0, 1);
    expect(() => {
      placer.page(0, 1, contentOf(0, 1), 0);
    }).toThrow(/missing/);
  });

  it("digests all of memory, where all of it is known", async () => {
    const hashes = new PageHashes(SECTION.blocks, SEED);
    const { placer } = open({ hashes });
    const expected = new PageHashes(SECTION.blocks, SEED);
    placer.page(0, 5, contentOf(0, 5), 0);
    placer.zeroPage(1, 6);
    await placer.flush();
    expected.set(expected.indexOf(0, 5), expected.hash(contentOf(0, 5)));
    expected.setZero(expected.indexOf(1, 6), 1);
    expect(placer.digest()).toBe(expected.digest());
    expect(open().placer.digest()).toBeNull();
  });

  it("ends RAM when nothing is missing, once, and tells when QEMU has it", async () => {
    const { qemu, placer, shut } = open();
    expect(() => placer.end()).toThrow(/nothing is missing/);
    for (const { block, first, count } of placer.missing.runs(3000)) {
      for (let page = first; page < first + count; page++) placer.zeroPage(block, page);
    }
    const ended = [placer.end(), placer.end()];
    await new Promise((resolve) => setImmediate(resolve));
    expect(qemu.phase).toBe("complete");
    shut.resolve();
    await Promise.all(ended);
    expect(qemu.placed.size).toBe(3200);
  });
});

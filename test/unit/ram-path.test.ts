/**
 * The whole RAM path without QEMU and without sockets: a simulated guest dirties pages, the source's
 * RamSender filters them, frames cross several links that overtake each other, the dest's
 * RamReceiver feeds a decoder that builds the memory up again. Whatever the order, both memories
 * and both digests are equal at the end.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Clock } from "@vmferry/core";
import { StreamDecoder, type RamBlock, type StreamHandler } from "@vmferry/qemu";
import { BulkReceiver } from "../../packages/dest-agent/src/bulk/bulk-receiver.ts";
import { RamReceiver } from "../../packages/dest-agent/src/ram/ram-receiver.ts";
import type { StreamSink } from "../../packages/dest-agent/src/ram/qemu-sink.ts";
import { RamSender } from "../../packages/source-agent/src/ram/ram-sender.ts";
import {
  BulkSender,
  type BulkConnection,
} from "../../packages/source-agent/src/transport/bulk-sender.ts";

const PAGE_BYTES = 4096;
const BLOCKS: readonly RamBlock[] = [
  { name: "pc.ram", lengthBytes: 300 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];
const HASH_SEED = "0123456789abcdef";
const CREDIT_BYTES = 2 * 1024 * 1024;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

type Write = readonly [block: number, page: number, content: number];

interface Plan {
  readonly connections: number;
  /** Pages written before each pass of the simulated QEMU. */
  readonly passes: readonly (readonly Write[])[];
  readonly heldBytesMax: number;
  /** Chooses which link delivers next. */
  readonly order: readonly number[];
}

describe("the RAM path", () => {
  it(`carries every last version of every page, in any order of links (SEED=${seed})`, async () => {
    await fc.assert(fc.asyncProperty(plan(), carries), { seed, numRuns: 150 });
  });

  it("holds a page that keeps coming and sends its latest content at the end", async () => {
    const passes = Array.from({ length: 12 }, (_, pass): Write[] => [[0, 7, pass + 1]]);
    const run = await carry({ connections: 1, passes, heldBytesMax: 2 ** 20, order: [0] });
    expect(run.held).toBe(PAGE_BYTES);
    // First pass, second pass, and once at the end: not twelve times.
    expect(run.sentPages).toBeLessThan(5);
    expect(run.equal).toBe(true);
  });

  it("does not send a page again that was written with what it held", async () => {
    const passes: Write[][] = [[[0, 3, 9]], [[0, 3, 9]], [[0, 3, 9]]];
    const run = await carry({ connections: 1, passes, heldBytesMax: 0, order: [0] });
    expect(run.sentPages).toBe(1);
    expect(run.unchangedPages).toBeGreaterThanOrEqual(2);
    expect(run.equal).toBe(true);
  });
});

async function carries(input: Plan): Promise<void> {
  const run = await carry(input);
  expect(run.equal).toBe(true);
  expect(run.destDigest).toBe(run.sourceDigest);
}

interface Run {
  readonly equal: boolean;
  readonly sourceDigest: string;
  readonly destDigest: string;
  readonly sentPages: number;
  readonly unchangedPages: number;
  readonly held: number;
}

async function carry(input: Plan): Promise<Run> {
  const links = new Links(input.connections, input.order);
  const memory = new Memory();
  const rebuilt = new Memory();
  let nowMs = 0;
  const clock: Clock = {
    nowMs: () => nowMs,
    date: () => new Date(0),
    after: () => () => undefined,
  };
  let sourceDigest = "";
  let sender: RamSender | null = null;
  const out = new BulkSender({
    connections: links.connections,
    creditBytes: CREDIT_BYTES,
    bandwidthBytesPerSecond: null,
    clock,
    onIdle: () => undefined,
    onFailed: (error) => {
      throw error;
    },
  });
  sender = new RamSender({
    out,
    clock,
    hashSeed: HASH_SEED,
    onRamSent: (digest) => {
      sourceDigest = digest;
    },
  });
  const receiver = new RamReceiver({
    sink: rebuilt.sink(),
    connections: input.connections,
    hashSeed: HASH_SEED,
    compression: true,
    postCopy: false,
    ramBytesMax: 2 ** 30,
  });
  const bulk = new BulkReceiver({
    connections: input.connections,
    creditBytes: CREDIT_BYTES,
    ram: receiver,
    disks: null,
    onCredit: (bytes) => {
      out.acknowledged(bytes);
    },
    onGarbage: () => undefined,
  });
  const running = receiver.run();
  running.catch(() => undefined);
  sender.setHeldBytesMax(input.heldBytesMax);
  let held = 0;

  sender.verbatim(prelude());
  sender.ramStart({ blocks: BLOCKS });
  memory.each((block, page, content) => {
    report(sender, { block, page, content });
  });
  for (const writes of input.passes) {
    nowMs += 30;
    const dirty = new Map<string, Write>();
    for (const write of writes) {
      memory.set(write);
      dirty.set(`${write[0]}.${write[1]}`, write);
    }
    for (const [block, page] of [...dirty.values()].sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
      report(sender, { block, page, content: memory.get(block, page) });
    }
    held = Math.max(held, sender.heldBytes);
    await links.deliverSome(bulk);
  }
  sender.stunned();
  sender.ramEnd();
  sender.deviceState(Buffer.from("device state"));
  await links.deliverAll(bulk, running);
  const { sentPages, unchangedPages } = sender.counters;
  const destDigest = receiver.digest();
  receiver.stop();
  await running;
  const equal = memory.equals(rebuilt) && rebuilt.tail === "device state";
  return { equal, sourceDigest, destDigest, sentPages, unchangedPages, held };
}

function report(
  handler: StreamHandler,
  at: { block: number; page: number; content: number },
): void {
  if (at.content === 0) handler.zeroPage(at.block, at.page);
  else handler.page(at.block, at.page, contentPage(at.content), 0);
}

function contentPage(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, `page ${content} `);
}

/** Page contents by number; 0 is the zero page. */
class Memory {
  readonly #pages = BLOCKS.map(({ lengthBytes }) => new Uint32Array(lengthBytes / PAGE_BYTES));
  tail = "";

  set([block, page, content]: Write): void {
    this.#pages[block]![page] = content;
  }

  get(block: number, page: number): number {
    return this.#pages[block]![page]!;
  }

  each(visit: (block: number, page: number, content: number) => void): void {
    for (const [block, pages] of this.#pages.entries()) {
      for (const [page, content] of pages.entries()) visit(block, page, content);
    }
  }

  equals(other: Memory): boolean {
    return this.#pages.every((pages, block) =>
      pages.every((content, page) => other.get(block, page) === content),
    );
  }

  /** Takes a QEMU stream and does what QEMU would do with it. */
  sink(): StreamSink {
    const contents = new Map<string, number>();
    for (let content = 1; content < 64; content++) {
      contents.set(contentPage(content).toString("latin1"), content);
    }
    const decoder = new StreamDecoder({
      verbatim: () => undefined,
      ramStart: () => undefined,
      partEnd: () => undefined,
      ramEnd: () => undefined,
      page: (block, page, buffer, offset) => {
        const text = buffer.toString("latin1", offset, offset + PAGE_BYTES);
        this.set([block, page, contents.get(text) ?? -1]);
      },
      zeroPage: (block, page) => {
        this.set([block, page, 0]);
      },
      deviceState: (bytes) => {
        this.tail += Buffer.from(bytes).toString();
      },
    });
    return {
      write: (bytes, done) => {
        decoder.push(Buffer.from(bytes));
        setImmediate(done);
        return Promise.resolve();
      },
    };
  }
}

/** Links that deliver in order each, and in any order among each other. */
class Links {
  readonly connections: readonly BulkConnection[];
  readonly #queues: Buffer[][];
  readonly #order: readonly number[];
  #turn = 0;

  constructor(count: number, order: readonly number[]) {
    this.#order = order;
    this.#queues = Array.from({ length: count }, () => []);
    this.connections = this.#queues.map((queue) => ({
      get bufferedBytes(): number {
        return queue.length;
      },
      send: (frame: Buffer, flushed: () => void): void => {
        queue.push(Buffer.from(frame));
        flushed();
      },
    }));
  }

  async deliverSome(receiver: BulkReceiver): Promise<void> {
    for (let i = 0; i < 3; i++) this.#deliverOne(receiver);
    await turn();
  }

  async deliverAll(receiver: BulkReceiver, running: Promise<void>): Promise<void> {
    const failed = running.then(() => undefined);
    for (let idle = 0; idle < 5;) {
      idle = this.#deliverOne(receiver) ? 0 : idle + 1;
      await Promise.race([turn(), failed]);
    }
  }

  #deliverOne(receiver: BulkReceiver): boolean {
    const first = this.#order[this.#turn++ % this.#order.length]!;
    for (let i = 0; i < this.#queues.length; i++) {
      const index = (first + i) % this.#queues.length;
      const frame = this.#queues[index]!.shift();
      if (frame === undefined) continue;
      receiver.arrived(index, frame);
      return true;
    }
    return false;
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      setImmediate(resolve);
    });
  });
}

/** Header, configuration and RAM START as QEMU writes them. */
function prelude(): Buffer {
  const machine = Buffer.from("pc-q35-10.0");
  const parts = [hex("5145564d00000003"), hex("07"), u32(machine.length), machine];
  const total = BLOCKS.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  parts.push(hex("0100000001"), str8("ram"), u32(0), u32(4), u64(total + 4));
  for (const { name, lengthBytes } of BLOCKS) parts.push(str8(name), u64(lengthBytes));
  parts.push(u64(0x10), hex("7e00000001"));
  return Buffer.concat(parts);
}

function hex(text: string): Buffer {
  return Buffer.from(text, "hex");
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function str8(text: string): Buffer {
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text)]);
}

function plan(): fc.Arbitrary<Plan> {
  const write = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(fc.constant(0), fc.nat(299), fc.nat(63)) },
    // A few pages that come again and again.
    { weight: 2, arbitrary: fc.tuple(fc.constant(0), fc.nat(5), fc.nat(63)) },
    { weight: 1, arbitrary: fc.tuple(fc.constant(1), fc.nat(3), fc.nat(63)) },
  );
  return fc.record({
    connections: fc.integer({ min: 1, max: 4 }),
    passes: fc.array(fc.array(write, { maxLength: 40 }), { maxLength: 20 }),
    heldBytesMax: fc.constantFrom(0, 3 * PAGE_BYTES, 2 ** 20),
    order: fc.array(fc.nat(3), { minLength: 1, maxLength: 16 }),
  });
}

import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { failureOf, PageHashes } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits, sealFrame, ZERO_RUN } from "@vmferry/protocol";
import { StreamDecoder } from "@vmferry/qemu";
import { RamReceiver, type RamReceiverOptions } from "./ram-receiver.ts";
import type { StreamSink } from "./qemu-sink.ts";

const { FRAME_HEADER_BYTES, PAGE_BYTES, RUN_BYTES } = limits;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 100 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];
const RAM_BYTES = 104 * PAGE_BYTES;
const HASH_SEED = "00112233445566ff";
const CREDIT_BYTES = 2 * 2 ** 20;
const SECTION = 4;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

/** first page, pages, content (0 = zero pages) */
type Run = readonly [first: number, pages: number, content: number];

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

const header = hex("5145564d00000003");
const eos = Buffer.concat([u64(0x10), hex("7e"), u32(SECTION)]);

/** RAM START with these blocks. */
function ramStart(blocks: readonly { name: string; lengthBytes: number }[] = BLOCKS): Buffer {
  const total = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const list = blocks.flatMap(({ name, lengthBytes }) => [str8(name), u64(lengthBytes)]);
  const head = [hex("01"), u32(SECTION), str8("ram"), u32(0), u32(4), u64(total + 4)];
  return Buffer.concat([...head, ...list, eos]);
}

const prelude = Buffer.concat([header, ramStart()]);

function contentPage(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, content === 0 ? 0 : `content ${content} `);
}

/** Frames of several connections, numbered as a source numbers them. */
class Source {
  readonly #sequences = [0, 0, 0, 0];
  readonly #receiver: RamReceiver;
  pass = 0;
  sentBytes = 0;

  constructor(receiver: RamReceiver) {
    this.#receiver = receiver;
  }

  stream(bytes: Buffer, at: Partial<Place> = {}): void {
    this.#send(FrameKind.STREAM, bytes, at);
  }

  pages(block: number, runs: readonly Run[], at: Partial<Place> = {}): void {
    const table = runs.map(([first, pages, content]) =>
      Buffer.concat([u32(first), u32(content === 0 ? ZERO_RUN + pages : pages)]),
    );
    const data = runs.flatMap(([, pages, content]) =>
      content === 0 ? [] : Array.from({ length: pages }, () => contentPage(content)),
    );
    const payload = Buffer.concat([...table, ...data]);
    this.#send(FrameKind.PAGES, payload, { ...at, block, runs: runs.length });
  }

  ramEnd(at: Partial<Place> = {}): void {
    this.#send(FrameKind.RAM_END, Buffer.alloc(0), at);
  }

  barrier(at: Partial<Place> = {}): void {
    this.#send(FrameKind.BARRIER, Buffer.alloc(0), at);
  }

  /** Ends the pass on every connection. */
  nextPass(connections = 1): void {
    for (let connection = 0; connection < connections; connection++) this.barrier({ connection });
    this.pass++;
  }

  #send(kind: FrameKind, payload: Buffer, at: Partial<Place> & { block?: number; runs?: number }): void {
    const { connection = 0, pass = this.pass, block = 0, runs = 0 } = at;
    const sequence = at.sequence ?? this.#sequences[connection]!++;
    const frame = Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), payload]);
    sealFrame(frame, { kind, encoding: FrameEncoding.RAW, pass, sequence, block, runs });
    if (kind === FrameKind.PAGES || kind === FrameKind.STREAM) this.sentBytes += frame.length;
    this.#receiver.arrived(connection, frame);
  }
}

interface Place {
  readonly connection: number;
  readonly pass: number;
  readonly sequence: number;
}

/** A QEMU that understands what it is fed; `hold` makes it slow. */
class Qemu implements StreamSink {
  readonly memory = new Map<string, string>();
  writes = 0;
  fedBytes = 0;
  deviceState = "";
  ramEnded = false;
  hold = false;
  readonly #held: (() => void)[] = [];
  readonly #decoder = new StreamDecoder({
    verbatim: () => undefined,
    ramStart: () => undefined,
    partEnd: () => undefined,
    ramEnd: () => (this.ramEnded = true),
    page: (block, page, buffer, offset) => {
      const text = buffer.toString("latin1", offset, offset + PAGE_BYTES);
      this.memory.set(`${block}.${page}`, /^content (\d+) /.exec(text)?.[1] ?? "?");
    },
    zeroPage: (block, page) => this.memory.set(`${block}.${page}`, "0"),
    deviceState: (bytes) => (this.deviceState += Buffer.from(bytes).toString("latin1")),
  });

  write(bytes: Uint8Array, done: () => void): Promise<void> {
    this.writes++;
    this.fedBytes += bytes.length;
    this.#decoder.push(Buffer.from(bytes));
    if (!this.hold) {
      setImmediate(done);
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#held.push(() => {
        done();
        resolve();
      });
    });
  }

  /** Takes what it was given so far. */
  release(): void {
    for (const take of this.#held.splice(0)) take();
  }
}

let qemu: Qemu;
let credits: number[];
let receiver: RamReceiver;
let source: Source;
let running: Promise<void>;

function begin(options: Partial<RamReceiverOptions> = {}): void {
  qemu = new Qemu();
  credits = [];
  receiver = new RamReceiver({
    sink: qemu,
    connections: 1,
    creditBytes: CREDIT_BYTES,
    hashSeed: HASH_SEED,
    compression: false,
    ramBytesMax: RAM_BYTES,
    onCredit: (bytes) => credits.push(bytes),
    onGarbage: () => undefined,
    ...options,
  });
  source = new Source(receiver);
  running = receiver.run();
  running.catch(() => undefined);
}

/** Everything that can be done with what arrived is done. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** The stream up to where pages are due. */
async function announce(connections = 1): Promise<void> {
  source.stream(prelude);
  source.nextPass(connections);
  await settle();
}

function creditBytes(): number {
  return credits.reduce((sum, bytes) => sum + bytes, 0);
}

beforeEach(() => {
  begin();
});

describe("what arrives", () => {
  test("is fed to QEMU in order: prelude, pages, the end of RAM, device state", async () => {
    await announce();
    expect(receiver.totalBytes).toBe(RAM_BYTES);
    source.pages(0, [
      [5, 2, 7],
      [20, 3, 0],
      [99, 1, 8],
    ]);
    source.pages(1, [[3, 1, 9]]);
    source.nextPass();
    source.pages(0, [[5, 1, 1]]);
    source.nextPass();
    source.ramEnd();
    source.stream(Buffer.from("devices"));
    await settle();
    expect(receiver.ramEnded.settled).toBe(true);
    expect(qemu.deviceState).toBe("devices");
    expect(Object.fromEntries(qemu.memory)).toEqual({
      "0.5": "1",
      "0.6": "7",
      "0.20": "0",
      "0.21": "0",
      "0.22": "0",
      "0.99": "8",
      "1.3": "9",
    });
    expect(receiver.counters).toMatchObject({ fedPages: 5, zeroPages: 3 });
  });

  test("is what the digest covers", async () => {
    await announce();
    source.pages(0, [
      [0, 1, 3],
      [1, 40, 0],
    ]);
    await settle();
    const hashes = new PageHashes(BLOCKS, HASH_SEED);
    hashes.set(0, hashes.hash(contentPage(3)));
    hashes.setZero(1, 40);
    expect(receiver.digest()).toBe(hashes.digest());
  });

  test("waits until every connection has ended the pass before", async () => {
    begin({ connections: 2 });
    await announce(2);
    source.pages(0, [[1, 1, 5]], { connection: 0 });
    source.barrier({ connection: 0 });
    source.pages(0, [[1, 1, 6]], { connection: 0, pass: 2 });
    await settle();
    expect(qemu.memory.get("0.1")).toBe("5");
    source.pages(0, [[2, 1, 5]], { connection: 1 });
    source.barrier({ connection: 1 });
    await settle();
    expect(qemu.memory.get("0.1")).toBe("6");
    expect(qemu.memory.get("0.2")).toBe("5");
  });

  test("of the prelude may be cut anywhere, and reaches QEMU whole", async () => {
    for (let at = 0; at < prelude.length; at += 5) source.stream(prelude.subarray(at, at + 5));
    source.nextPass();
    source.pages(0, [[1, 1, 5]]);
    await settle();
    expect(qemu.memory.get("0.1")).toBe("5");
    expect(creditBytes()).toBe(source.sentBytes);
  });

  test("is not fed any more once the receiver was stopped", async () => {
    await announce();
    const { writes } = qemu;
    source.pages(0, [[1, 1, 5]]);
    receiver.stop();
    await running;
    await settle();
    expect(qemu.writes).toBe(writes);
  });

  test("ends the run when QEMU does not take it", async () => {
    const sink: StreamSink = { write: () => Promise.reject(new Error("QEMU is gone")) };
    begin({ sink });
    source.stream(prelude);
    await expect(running).rejects.toThrow("QEMU is gone");
  });
});

describe("credit", () => {
  test("comes back when QEMU has taken the bytes, not before", async () => {
    await announce();
    const before = creditBytes();
    expect(before).toBe(source.sentBytes);
    qemu.hold = true;
    source.pages(0, [[1, 4, 5]]);
    await settle();
    expect(creditBytes()).toBe(before);
    qemu.hold = false;
    qemu.release();
    await settle();
    expect(creditBytes()).toBe(source.sentBytes);
  });

  test("comes back for zero pages when they were written", async () => {
    await announce();
    const before = creditBytes();
    qemu.hold = true;
    source.pages(0, [[0, 100, 0]]);
    await settle();
    expect(creditBytes()).toBe(before);
    qemu.release();
    await settle();
    expect(creditBytes()).toBe(before + FRAME_HEADER_BYTES + RUN_BYTES);
  });

  test("may be used up to the last byte", async () => {
    const frameBytes = FRAME_HEADER_BYTES + RUN_BYTES + 10 * PAGE_BYTES;
    begin({ creditBytes: 3 * frameBytes });
    await announce();
    qemu.hold = true;
    for (let i = 0; i < 3; i++) source.pages(0, [[i * 10, 10, 1]]);
    expect(() => {
      source.stream(Buffer.alloc(0));
    }).toThrow("credit exceeded");
  });

  test("is not spent on barriers", async () => {
    begin({ creditBytes: prelude.length + FRAME_HEADER_BYTES });
    await announce();
    for (let i = 0; i < 1000; i++) source.nextPass();
    await settle();
    expect(creditBytes()).toBe(source.sentBytes);
  });

  test(`is in total exactly what was sent, and never more under way than given (SEED=${seed})`, async () => {
    const run = fc.tuple(fc.nat(9), fc.integer({ min: 1, max: 10 }), fc.nat(3));
    const property = fc.asyncProperty(
      fc.array(fc.tuple(run, fc.boolean(), fc.nat(3)), { maxLength: 40 }),
      async (frames) => {
        begin();
        await announce();
        qemu.hold = true;
        for (const [[place, pages, content], release, barrier] of frames) {
          source.pages(0, [[place * 10, pages, content]]);
          expect(creditBytes()).toBeLessThanOrEqual(source.sentBytes);
          if (barrier === 0) source.nextPass();
          if (!release) continue;
          qemu.release();
          await new Promise((resolve) => setImmediate(resolve));
        }
        qemu.hold = false;
        for (let turn = 0; turn < 50; turn++) {
          qemu.release();
          await new Promise((resolve) => setImmediate(resolve));
        }
        expect(creditBytes()).toBe(source.sentBytes);
        receiver.stop();
        await running;
      },
    );
    await fc.assert(property, { seed, numRuns: 30 });
  });
});

describe("a source that breaks the protocol", () => {
  interface Fed {
    readonly memory: [string, string][];
    readonly fedBytes: number;
  }

  function fed(): Fed {
    return { memory: [...qemu.memory], fedBytes: qemu.fedBytes };
  }

  /** The frame is refused where it arrives or where it is fed, and QEMU sees nothing of it. */
  async function refused(rule: string, act: () => void): Promise<void> {
    const before = fed();
    let error: unknown = null;
    try {
      act();
      error = await Promise.race([running, settle()]).then(
        () => null,
        (reason: unknown) => reason,
      );
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ detail: { code: "protocol-violation", rule } });
    await settle();
    expect(fed()).toEqual(before);
  }

  test("by pages before RAM was announced", async () => {
    await refused("pages before RAM was announced", () => {
      source.pages(0, [[0, 1, 1]]);
    });
  });

  test("by an end of RAM before RAM was announced", async () => {
    await refused("pages before RAM was announced", () => {
      source.ramEnd();
    });
  });

  test("by a block that is not there", async () => {
    await announce();
    await refused("frame of a block that is not there", () => {
      source.pages(2, [[0, 1, 1]]);
    });
  });

  test.each([
    [0, [[100, 1, 1]]],
    [0, [[98, 3, 1]]],
    [0, [[100, 1, 0]]],
    [0, [[0, 101, 0]]],
    [0, [[0, 0x7fff_ffff, 0]]],
    [0, [[0xffff_ffff, 1, 0]]],
    [0, [[0xffff_ffff, 0x7fff_ffff, 0]]],
    [1, [[4, 1, 1]]],
    [
      0,
      [
        [1, 1, 1],
        [99, 2, 0],
      ],
    ],
  ] as const)("by a run outside block %i: %j", async (block, runs) => {
    await announce();
    await refused("run outside its block", () => {
      source.pages(block, runs);
    });
  });

  test("by a page twice in a frame", async () => {
    await announce();
    await refused("runs overlap", () => {
      source.pages(0, [
        [4, 3, 1],
        [6, 1, 0],
      ]);
    });
  });

  test("by pages after the end of RAM", async () => {
    await announce();
    source.ramEnd();
    await settle();
    await refused("pages after the end of RAM", () => {
      source.pages(0, [[0, 1, 1]]);
    });
  });

  test("by ending RAM twice", async () => {
    await announce();
    source.ramEnd();
    await settle();
    await refused("the end of RAM twice", () => {
      source.ramEnd();
    });
  });

  test.each([1, 7, 0xffff_ffff])("by a frame that skips to sequence %i", async (sequence) => {
    await refused("frame sequence", () => {
      source.stream(prelude, { sequence });
    });
  });

  test("by sending a frame again", async () => {
    source.stream(prelude);
    await settle();
    await refused("frame sequence", () => {
      source.stream(prelude, { sequence: 0 });
    });
  });

  test.each([0, 2, 3])("by a frame of pass %i in pass 1", async (pass) => {
    await announce();
    await refused("frame of another pass than its connection's", () => {
      source.pages(0, [[0, 1, 1]], { pass });
    });
  });

  test("by a barrier twice", async () => {
    await announce();
    source.barrier();
    await refused("frame of another pass than its connection's", () => {
      source.barrier();
    });
  });

  test("by a barrier twice on one of two connections", async () => {
    begin({ connections: 2 });
    await announce(2);
    source.barrier({ connection: 1 });
    source.barrier({ connection: 1 });
    await refused("frame of another pass than its connection's", () => {
      source.barrier({ connection: 0 });
    });
  });

  test.each(["stream", "ramEnd"] as const)("by %s on another connection than the first", async (kind) => {
    begin({ connections: 2 });
    await announce(2);
    await refused("ordered frame on another connection than the first", () => {
      if (kind === "stream") source.stream(Buffer.of(8), { connection: 1 });
      else source.ramEnd({ connection: 1 });
    });
  });

  test("by more than its credit", async () => {
    begin({ creditBytes: prelude.length + 2 * PAGE_BYTES });
    await announce();
    qemu.hold = true;
    source.pages(0, [[0, 1, 1]]);
    await settle();
    await refused("credit exceeded", () => {
      source.pages(0, [[1, 1, 1]]);
    });
  });

  test("by more than its credit while a pass is waited for", async () => {
    begin({ connections: 2, creditBytes: 64 * 1024 });
    await announce(2);
    source.barrier({ connection: 0 });
    await refused("credit exceeded", () => {
      for (let i = 0; i < 40; i++) source.pages(0, [[i, 1, 1]], { connection: 0, pass: 2 });
    });
  });

  test("by barriers without end on one connection", async () => {
    begin({ connections: 2 });
    await refused("too many frames", () => {
      for (let pass = 0; pass < 70_000; pass++) source.barrier({ connection: 0, pass });
    });
  });

  test("by more RAM than it offered", async () => {
    begin({ ramBytesMax: RAM_BYTES - 1 });
    await refused("more RAM than the offer named", () => {
      source.stream(prelude);
    });
  });

  const part = Buffer.concat([hex("02"), u32(SECTION)]);
  const named = (flags: number, page = 0): Buffer =>
    Buffer.concat([u64(page * PAGE_BYTES + flags), str8("pc.ram")]);
  test.each([
    ["a page", Buffer.concat([part, named(8), contentPage(1), eos])],
    ["a zero page", Buffer.concat([part, named(2), Buffer.of(0), eos])],
    ["an end of RAM", Buffer.concat([hex("03"), u32(SECTION), eos])],
    ["an end of RAM with device state", Buffer.concat([hex("03"), u32(SECTION), eos, hex("00")])],
  ])("by %s in opaque bytes", async (_what, bytes) => {
    await announce();
    await refused("RAM records in opaque bytes", () => {
      source.nextPass();
      source.stream(bytes);
    });
  });

  test("by half a page in opaque bytes, which real pages would fill up", async () => {
    await announce();
    const before = qemu.fedBytes;
    source.stream(Buffer.concat([part, named(8), contentPage(1).subarray(1)]));
    await settle();
    expect(qemu.fedBytes).toBe(before);
    source.nextPass();
    source.pages(0, [[7, 1, 2]]);
    await settle();
    expect([...qemu.memory]).toEqual([["0.7", "2"]]);
  });

  test.each([
    ["no migration stream", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    ["a second announcement of RAM", Buffer.concat([prelude, ramStart()])],
    ["a device section", Buffer.concat([prelude, hex("04"), u32(9), str8("cpu"), u32(0), u32(1)])],
    ["a page outside its block", Buffer.concat([prelude, part, named(8, 100), contentPage(1)])],
    ["a block that comes twice", Buffer.concat([header, ramStart([BLOCKS[0]!, BLOCKS[0]!])])],
  ])("by a stream that is none: %s", async (_what, bytes) => {
    source.stream(bytes);
    const error = await running.catch((reason: unknown) => reason);
    expect(failureOf(error, "dest").code).toBe("protocol-violation");
    expect([qemu.writes, qemu.memory.size]).toEqual([0, 0]);
  });

  test("by a frame that was damaged, or is none", async () => {
    await announce();
    const bytes = Buffer.alloc(40);
    expect(() => {
      receiver.arrived(0, bytes);
    }).toThrow(expect.objectContaining({ code: "frame-corrupt" }));
    await refused("frame shorter than its header", () => {
      receiver.arrived(0, Buffer.alloc(31));
    });
  });
});

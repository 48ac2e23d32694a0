/**
 * For tests: a RamReceiver between a source that can say anything and a QEMU that understands what
 * it is fed.
 */
import {
  costsCredit,
  FrameEncoding,
  FrameKind,
  limits,
  sealFrame,
  ZERO_RUN,
} from "@vmferry/protocol";
import { COMMAND, decodeRamDiscard, StreamDecoder, type RamDiscard } from "@vmferry/qemu";
import { BulkReceiver, type BulkReceiverOptions } from "../bulk/bulk-receiver.ts";
import type { StreamSink } from "./qemu-sink.ts";
import { RamReceiver, type RamReceiverOptions } from "./ram-receiver.ts";

export type ReceiverBenchOptions = Partial<RamReceiverOptions & BulkReceiverOptions>;

const { FRAME_HEADER_BYTES, PAGE_BYTES } = limits;
export const BLOCKS = [
  { name: "pc.ram", lengthBytes: 100 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];
export const RAM_BYTES = 104 * PAGE_BYTES;
export const HASH_SEED = "00112233445566ff";
export const SECTION = 4;
const CREDIT_BYTES = 2 * 2 ** 20;

/** first page, pages, content (0 = zero pages) */
type Run = readonly [first: number, pages: number, content: number];

export function hex(text: string): Buffer {
  return Buffer.from(text, "hex");
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export function str8(text: string): Buffer {
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text)]);
}

export const streamHeader = hex("5145564d00000003");
export const eos = Buffer.concat([u64(0x10), hex("7e"), u32(SECTION)]);

/** RAM START with these blocks. */
export function ramStart(
  blocks: readonly { name: string; lengthBytes: number }[] = BLOCKS,
): Buffer {
  const total = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const list = blocks.flatMap(({ name, lengthBytes }) => [str8(name), u64(lengthBytes)]);
  const head = [hex("01"), u32(SECTION), str8("ram"), u32(0), u32(4), u64(total + 4)];
  return Buffer.concat([...head, ...list, eos]);
}

export const prelude = Buffer.concat([streamHeader, ramStart()]);

export function contentPage(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, content === 0 ? 0 : `content ${content} `);
}

/** Frames of several connections, numbered as a source numbers them. */
export class Source {
  readonly #sequences = [0, 0, 0, 0];
  readonly #receiver: BulkReceiver;
  pass = 0;
  sentBytes = 0;

  constructor(receiver: BulkReceiver) {
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

  /** Runs of `[first page, pages]`. */
  missing(
    block: number,
    runs: readonly (readonly [number, number])[],
    at: Partial<Place> = {},
  ): void {
    const table = runs.map(([first, pages]) => Buffer.concat([u32(first), u32(pages)]));
    this.#send(FrameKind.MISSING, Buffer.concat(table), { ...at, block, runs: runs.length });
  }

  postcopy(deviceStateBytes: number, at: Partial<Place> = {}): void {
    this.#send(FrameKind.POSTCOPY, u32(deviceStateBytes), at);
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

  #send(
    kind: FrameKind,
    payload: Buffer,
    at: Partial<Place> & { block?: number; runs?: number },
  ): void {
    const { connection = 0, pass = this.pass, block = 0, runs = 0 } = at;
    const sequence = at.sequence ?? this.#sequences[connection]!++;
    const frame = Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), payload]);
    sealFrame(frame, { kind, encoding: FrameEncoding.RAW, pass, sequence, block, runs });
    if (costsCredit(kind)) this.sentBytes += frame.length;
    this.#receiver.arrived(connection, frame);
  }
}

interface Place {
  readonly connection: number;
  readonly pass: number;
  readonly sequence: number;
}

/** A QEMU that understands what it is fed; `hold` makes it slow. */
export class Qemu implements StreamSink {
  readonly memory = new Map<string, string>();
  writes = 0;
  fedBytes = 0;
  deviceState = "";
  ramEnded = false;
  /** Names of commands, in their order. */
  readonly commands: string[] = [];
  readonly discards: RamDiscard[] = [];
  /** All of a package was read. */
  isPackaged = false;
  hold = false;
  readonly #held: (() => void)[] = [];
  readonly #decoder = new StreamDecoder({
    verbatim: () => undefined,
    ramStart: () => undefined,
    partEnd: () => undefined,
    ramEnd: () => (this.ramEnded = true),
    command: (command, payload) => {
      this.commands.push(commandName(command));
      if (command === COMMAND.POSTCOPY_RAM_DISCARD) this.discards.push(decodeRamDiscard(payload));
    },
    packageEnd: () => (this.isPackaged = true),
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

function commandName(command: number): string {
  return Object.entries(COMMAND).find(([, code]) => code === command)![0];
}

export class ReceiverBench {
  readonly qemu = new Qemu();
  readonly receiver: RamReceiver;
  readonly bulk: BulkReceiver;
  readonly source: Source;
  /** Ends when the receiver does; rejects with what was wrong. */
  readonly running: Promise<void>;
  creditBytes = 0;

  constructor(options: ReceiverBenchOptions = {}) {
    this.receiver = new RamReceiver({
      sink: this.qemu,
      connections: 1,
      hashSeed: HASH_SEED,
      compression: false,
      postCopy: false,
      ramBytesMax: RAM_BYTES,
      ...options,
    });
    this.bulk = new BulkReceiver({
      connections: 1,
      creditBytes: CREDIT_BYTES,
      ram: this.receiver,
      disks: null,
      onCredit: (bytes) => (this.creditBytes += bytes),
      onGarbage: () => undefined,
      ...options,
    });
    this.source = new Source(this.bulk);
    this.running = this.receiver.run();
    this.running.catch(() => undefined);
  }

  /** The stream up to where pages are due. */
  async announce(connections = 1): Promise<void> {
    this.source.stream(prelude);
    this.source.nextPass(connections);
    await settle();
  }
}

/** Everything that can be done with what arrived is done. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

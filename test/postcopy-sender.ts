// A source agent as small as can be: an ordinary migration of its QEMU becomes frames, and from
// `drain` on pages go into a store instead. At the end the dest is told what it lacks.

import { rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { assert, Deferred } from "@vmferry/core";
import { FrameEncoding, FrameKind, limits, sealFrame, ZERO_RUN } from "@vmferry/protocol";
import {
  DeviceStateTail,
  encodeReturnPath,
  encodeShut,
  PAGE_BYTES,
  StreamDecoder,
  type RamSection,
  type ReturnPathMessage,
  type StreamHandler,
} from "@vmferry/qemu";
import { PageHashes, PageSet } from "../packages/agent/src/index.ts";

const { FRAME_HEADER_BYTES, FRAME_RUNS_MAX, FRAME_STREAM_BYTES_MAX, RUN_BYTES } = limits;

export interface SenderOptions {
  /** Where the source's QEMU is told to migrate to. */
  readonly socketPath: string;
  readonly hashSeed: string;
  readonly onFrame: (frame: Buffer) => void;
}

export class PostcopySender {
  /** Pages of pre-copy that went to the dest. */
  sentPages = 0;
  /** RAM has ended and all of device state is here. */
  readonly stunned = new Deferred();
  readonly #options: SenderOptions;
  readonly #tail = new DeviceStateTail(limits.DEVICE_STATE_BYTES_MAX);
  readonly #store = new Map<string, Buffer>();
  #hashes: PageHashes | null = null;
  #stored: PageSet | null = null;
  #server: Server | null = null;
  #socket: Socket | null = null;
  #sequence = 0;
  #pass = 0;
  #drains = false;

  private constructor(options: SenderOptions) {
    this.#options = options;
  }

  static async open(options: SenderOptions): Promise<PostcopySender> {
    const sender = new PostcopySender(options);
    await rm(options.socketPath, { force: true });
    const server = createServer((socket) => {
      sender.#join(socket);
    });
    sender.#server = server;
    await new Promise<void>((resolve) => server.listen(options.socketPath, resolve));
    return sender;
  }

  /** Pages that the dest does not have. */
  get stored(): PageSet {
    assert(this.#stored !== null, "RAM was announced");
    return this.#stored;
  }

  drain(): void {
    this.#drains = true;
  }

  /** What a stored page holds; null for zeros. */
  content(block: number, page: number): Buffer | null {
    const content = this.#store.get(`${block}:${page}`);
    assert(content !== undefined, "the page is in the store");
    return content.length === 0 ? null : content;
  }

  /** Over all of memory. */
  digest(): string {
    return this.#known.digest();
  }

  get #known(): PageHashes {
    assert(this.#hashes !== null, "RAM was announced");
    return this.#hashes;
  }

  get #qemu(): Socket {
    assert(this.#socket !== null, "the source's QEMU has connected");
    return this.#socket;
  }

  /** Memory and device state as far as they come before the hand-over; returns that memory's digest. */
  handOver(): string {
    const hashes = this.#known;
    const kept: [number, bigint][] = [];
    for (const { block, first, count } of this.stored.runs(FRAME_RUNS_MAX)) {
      const table = Buffer.alloc(RUN_BYTES);
      table.writeUInt32BE(first, 0);
      table.writeUInt32BE(count, 4);
      this.#send(FrameKind.MISSING, table, { block, runs: 1 });
      for (let page = first; page < first + count; page++) {
        const index = hashes.indexOf(block, page);
        kept.push([index, hashes.get(index)]);
        hashes.set(index, 0n);
      }
    }
    const digest = hashes.digest();
    for (const [index, hash] of kept) hashes.set(index, hash);
    const { deviceBytes } = this.#tail;
    assert(deviceBytes !== null, "device state is complete");
    const length = Buffer.alloc(4);
    length.writeUInt32BE(deviceBytes);
    this.#send(FrameKind.POSTCOPY, length);
    this.#stream(this.#tail.bytes.subarray(0, deviceBytes));
    return digest;
  }

  /** The end of an ordinary migration. */
  endOrdinarily(): void {
    assert(this.stored.count === 0, "all of memory is at the dest");
    this.#send(FrameKind.RAM_END, Buffer.alloc(0));
    this.#stream(this.#tail.bytes);
  }

  answer(message: ReturnPathMessage): void {
    this.#qemu.write(encodeReturnPath(message));
  }

  /** The source's QEMU may complete. */
  shut(): void {
    this.#qemu.write(encodeShut(0));
  }

  close(): void {
    this.#socket?.destroy();
    this.#server?.close();
  }

  #join(socket: Socket): void {
    this.#socket = socket;
    const decoder = new StreamDecoder(this.#handler());
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        this.stunned.reject(error);
        socket.destroy();
      }
    });
  }

  #handler(): StreamHandler {
    return {
      verbatim: (bytes) => {
        this.#stream(bytes);
      },
      ramStart: ({ blocks }: RamSection) => {
        this.#hashes = new PageHashes(blocks, this.#options.hashSeed);
        this.#stored = new PageSet(blocks);
      },
      page: (block, page, buffer, offset) => {
        this.#page(block, page, buffer.subarray(offset, offset + PAGE_BYTES));
      },
      zeroPage: (block, page) => {
        this.#page(block, page, Buffer.alloc(0));
      },
      partEnd: () => undefined,
      ramEnd: () => undefined,
      deviceState: (bytes) => {
        this.#tail.push(bytes);
        if (this.#tail.deviceBytes !== null) this.stunned.resolve();
      },
    };
  }

  #page(block: number, page: number, content: Buffer): void {
    const hashes = this.#known;
    const index = hashes.indexOf(block, page);
    if (content.length === 0) hashes.setZero(index, 1);
    else hashes.set(index, hashes.hash(Buffer.from(content)));
    if (this.#drains) {
      this.#store.set(`${block}:${page}`, Buffer.from(content));
      this.stored.add(block, page);
      return;
    }
    this.sentPages++;
    const run = Buffer.alloc(RUN_BYTES);
    run.writeUInt32BE(page, 0);
    run.writeUInt32BE(content.length === 0 ? ZERO_RUN + 1 : 1, 4);
    this.#send(FrameKind.PAGES, Buffer.concat([run, content]), { block, runs: 1 });
    // One page a pass: the same page may come next.
    this.#send(FrameKind.BARRIER, Buffer.alloc(0));
    this.#pass++;
  }

  #stream(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += FRAME_STREAM_BYTES_MAX) {
      this.#send(FrameKind.STREAM, Buffer.from(bytes.subarray(at, at + FRAME_STREAM_BYTES_MAX)));
    }
  }

  #send(kind: FrameKind, payload: Buffer, { block = 0, runs = 0 } = {}): void {
    const frame = Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), payload]);
    const encoding = FrameEncoding.RAW;
    sealFrame(frame, {
      ...{ kind, encoding, block, runs },
      pass: this.#pass,
      sequence: this.#sequence++,
    });
    this.#options.onFrame(frame);
  }
}

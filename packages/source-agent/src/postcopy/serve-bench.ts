/** For tests: page lanes as the source sees them, and a store of memory. */
import { createLogger, ManualClock, PageSet, PeerError } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import {
  closeCodeOf,
  decodePageMessage,
  encodePageMessage,
  isPageMessage,
  limits,
  openFrame,
  RunTable,
  type ControlMessageOf,
  type FrameHeader,
  type PageMessage,
} from "@vmferry/protocol";
import type { OpenPageLane } from "../adapters/page-socket.ts";
import { PageService, type PageServiceOptions, type UnreadablePage } from "./page-service.ts";
import type { StoredPages } from "./stored-pages.ts";

const { PAGE_BYTES } = limits;
const BLOCKS = [{ lengthBytes: 4000 * PAGE_BYTES }, { lengthBytes: 10 * PAGE_BYTES }];

/** A frame as it went out: its pages as `block:page`, those of zeros with a `z`. */
export interface SentFrame {
  readonly header: FrameHeader;
  readonly bytes: number;
  readonly pages: readonly string[];
}

export class FakePageLane implements OpenPageLane {
  readonly hello: ControlMessageOf<"pages-hello">;
  readonly roundTripMs = 2;
  readonly bufferedBytes = 0;
  readonly closed: Promise<Error>;
  readonly frames: SentFrame[] = [];
  readonly messages: PageMessage[] = [];
  closeCode: number | null = null;
  readonly #closed = new Deferred<Error>();
  #hear: (bytes: Buffer) => void = () => undefined;

  constructor(hello: ControlMessageOf<"pages-hello">) {
    this.hello = hello;
    this.closed = this.#closed.promise;
  }

  send(bytes: Buffer, flushed: () => void): void {
    if (isPageMessage(bytes)) this.messages.push(decodePageMessage(bytes));
    else this.frames.push(readFrame(Buffer.from(bytes)));
    flushed();
  }

  listen(onMessage: (bytes: Buffer) => void): void {
    this.#hear = onMessage;
  }

  close(reason?: unknown): void {
    this.closeCode = closeCodeOf(reason);
    this.#closed.resolve(new Error("closed"));
  }

  say(message: PageMessage): void {
    this.#hear(encodePageMessage(message));
  }

  hear(bytes: Buffer): void {
    this.#hear(bytes);
  }

  lose(closeCode: number | null = null): void {
    this.#closed.resolve(new PeerError("gone", { code: "peer-lost", closeCode }));
  }
}

function readFrame(frame: Buffer): SentFrame {
  const header = openFrame(frame);
  const table = new RunTable();
  table.open(frame, header, BLOCKS[header.block]!.lengthBytes / PAGE_BYTES);
  const pages: string[] = [];
  for (let run = 0; run < table.count; run++) {
    for (let index = 0; index < table.pages(run); index++) {
      pages.push(`${header.block}:${table.first(run) + index}${table.zero(run) ? "z" : ""}`);
    }
  }
  return { header, bytes: frame.length, pages };
}

export class ServeBench implements StoredPages {
  readonly pages = new PageSet(BLOCKS);
  readonly clock = new ManualClock();
  readonly lanes: FakePageLane[] = [];
  readonly unreadable: UnreadablePage[] = [];
  readonly service: PageService;
  readonly running: Promise<void>;
  reads = 0;
  isBroken: (page: number) => boolean = () => false;
  /** What dialling does before it succeeds. */
  onDial: (lane: "urgent" | "background", signal: AbortSignal) => Promise<void> = () =>
    Promise.resolve();

  constructor(stored: number, options: Partial<PageServiceOptions> = {}) {
    for (let page = 0; page < stored; page++) this.pages.add(0, page);
    const stream = { write: (): void => undefined };
    this.service = new PageService({
      store: this,
      dialer: {
        pages: async (hello, signal) => {
          await this.onDial(hello.lane, signal);
          signal.throwIfAborted();
          const lane = new FakePageLane(hello);
          this.lanes.push(lane);
          return lane;
        },
      },
      about: { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" },
      clock: this.clock,
      random: () => 0,
      logger: createLogger({ role: "source", level: "info", stream }),
      bandwidthBytesPerSecond: null,
      linkBytesPerSecond: null,
      compression: false,
      hashes: null,
      ramDigest: () => "d1".repeat(32),
      onProgress: () => undefined,
      onFailed: (page) => this.unreadable.push(page),
      ...options,
    });
    this.service.setPush({ isRestDue: true });
    this.running = this.service.run();
  }

  isZero(_block: number, page: number): boolean {
    return page % 100 === 99;
  }

  read(_block: number, firstPage: number, pages: number, into: Buffer): Promise<void> {
    this.reads++;
    for (let page = firstPage; page < firstPage + pages; page++) {
      if (this.isBroken(page)) return Promise.reject(new Error("EIO"));
      into.fill(page & 0xff, (page - firstPage) * PAGE_BYTES, (page - firstPage + 1) * PAGE_BYTES);
    }
    return Promise.resolve();
  }

  /** The last one dialled. */
  get urgent(): FakePageLane {
    return this.lanes.findLast(({ hello }) => hello.lane === "urgent")!;
  }

  get background(): FakePageLane {
    return this.lanes.findLast(({ hello }) => hello.lane === "background")!;
  }

  /** Of all frames of the background lane that stands. */
  get backgroundBytes(): number {
    return this.background.frames.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The dest lacks the first so many pages. */
  async missing(count: number): Promise<this> {
    await settled();
    const runs = count === 0 ? [] : [{ first: 0, count }];
    this.urgent.say({ kind: "missing", block: 0, runs, last: true });
    await settled();
    return this;
  }

  async request(firstPage: number, pages = 1): Promise<void> {
    this.urgent.say({ kind: "request", block: 0, firstPage, pages });
    await settled();
  }

  /** The dest has placed every frame of a lane that it has not told of. */
  async placeAll(name: "urgent" | "background"): Promise<void> {
    for (const { bytes } of this[name].frames.splice(0)) {
      this.urgent.say({ kind: "placed", lane: name, bytes });
    }
    await settled();
  }

  /** Lets time pass and the service dial. */
  async later(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 10) {
      this.clock.advance(10);
      await settled();
    }
  }
}

export async function settled(): Promise<void> {
  for (let round = 0; round < 5; round++) await new Promise((resolve) => setImmediate(resolve));
}

/** For tests: page lanes as the dest sees them, and a QEMU that takes pages when a test says so. */
import { createLogger, ManualClock, PageSet } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import {
  decodePageMessage,
  encodePageMessage,
  FrameEncoding,
  FrameKind,
  limits,
  sealFrame,
  ZERO_RUN,
  type CloseCode,
  type FrameHeader,
  type PageMessage,
} from "@vmferry/protocol";
import type { PageLink } from "../session/page-link.ts";
import { PageFetch, type PageFetchOptions } from "./page-fetch.ts";
import type { PagePlacer } from "./page-placer.ts";
import type { FoundPages, PagesFromFile, WantedPages } from "./pages-from-file.ts";

const { PAGE_BYTES } = limits;
export const BLOCKS = [{ lengthBytes: 10_000 * PAGE_BYTES }, { lengthBytes: 10 * PAGE_BYTES }];

export class FakePageLink implements PageLink {
  readonly said: PageMessage[] = [];
  closeCode: CloseCode | null = null;
  arrive: (bytes: Buffer) => void = () => undefined;
  end: (reason: Error) => void = () => undefined;

  send(bytes: Buffer, flushed: () => void): void {
    this.said.push(decodePageMessage(bytes));
    flushed();
  }

  listen(onMessage: (bytes: Buffer) => void, onEnd: (reason: Error) => void): void {
    this.arrive = onMessage;
    this.end = onEnd;
  }

  close(code: CloseCode): void {
    this.closeCode = code;
  }
}

export class FakePlacer implements PagePlacer {
  readonly missing = new PageSet(BLOCKS);
  /** `block:page=first byte`, in the order of placing; `|` is a flush. */
  readonly placed: string[] = [];
  isEnded = false;
  /** QEMU says that it has everything. */
  shut: Promise<void> = Promise.resolve();
  ownDigest: string | null = "d1".repeat(32);
  /** Flushes wait for it. */
  gate: Promise<void> = Promise.resolve();

  page(block: number, page: number, data: Buffer, offset: number): void {
    this.#take(block, page, data[offset]!);
  }

  zeroPage(block: number, page: number): void {
    this.#take(block, page, 0);
  }

  async flush(): Promise<void> {
    this.placed.push("|");
    await this.gate;
  }

  digest(): string | null {
    return this.ownDigest;
  }

  end(): Promise<void> {
    this.isEnded = true;
    return this.shut;
  }

  #take(block: number, page: number, first: number): void {
    if (!this.missing.remove(block, page)) throw new Error("a page that is not missing");
    this.placed.push(`${block}:${page}=${first}`);
  }
}

/** A page file of which the next pages are there when a test says so. */
export class FakePageFile implements PagesFromFile {
  wanted: WantedPages | null = null;
  asks = 0;
  isClosed = false;
  #next = new Deferred<readonly FoundPages[] | null>();

  next(wanted: WantedPages): Promise<readonly FoundPages[] | null> {
    this.wanted = wanted;
    return this.#next.promise;
  }

  asked(): void {
    this.asks++;
  }

  close(): void {
    this.isClosed = true;
  }

  async gives(found: readonly FoundPages[] | null): Promise<void> {
    const next = this.#next;
    this.#next = new Deferred();
    next.resolve(found);
    await settled();
  }
}

/** First page, pages; a negative number of pages are zeros. */
export type Runs = readonly (readonly [number, number])[];

/** A PAGES frame: each data page is filled with its number. */
export function pagesFrame(sequence: number, runs: Runs, rest: Partial<FrameHeader> = {}): Buffer {
  const table = Buffer.alloc(runs.length * 8);
  const data: Buffer[] = [];
  for (const [index, [first, pages]] of runs.entries()) {
    table.writeUInt32BE(first, index * 8);
    table.writeUInt32BE(pages < 0 ? ZERO_RUN - pages : pages, index * 8 + 4);
    for (let page = first; page < first + pages; page++) {
      data.push(Buffer.alloc(PAGE_BYTES, page & 0xff));
    }
  }
  return frameOf(sequence, Buffer.concat([table, ...data]), { runs: runs.length, ...rest });
}

export function frameOf(sequence: number, payload: Buffer, rest: Partial<FrameHeader>): Buffer {
  const frame = Buffer.concat([Buffer.alloc(limits.FRAME_HEADER_BYTES), payload]);
  const header = { kind: FrameKind.PAGES, encoding: FrameEncoding.RAW, pass: 0, block: 0, runs: 0 };
  sealFrame(frame, { ...header, sequence, ...rest });
  return frame;
}

export class FetchBench {
  readonly clock = new ManualClock();
  readonly placer = new FakePlacer();
  readonly fetch: PageFetch;
  endsOverdue = 0;
  readonly faultSeconds: number[] = [];
  urgent = new FakePageLink();
  background = new FakePageLink();
  #sequences = { urgent: 0, background: 0 };

  constructor({
    compression = true,
    maySayAll = false,
  }: Partial<Pick<PageFetchOptions, "compression" | "maySayAll">> = {}) {
    const stream = { write: (): void => undefined };
    this.fetch = new PageFetch({
      clock: this.clock,
      logger: createLogger({ role: "dest", level: "info", stream }),
      compression,
      maySayAll,
      onProgress: () => undefined,
      onEndOverdue: () => {
        this.endsOverdue++;
      },
      onPageFault: (seconds) => {
        this.faultSeconds.push(seconds);
      },
    });
  }

  missing(block: number, first: number, count: number): this {
    for (let page = first; page < first + count; page++) this.placer.missing.add(block, page);
    return this;
  }

  /** QEMU loaded, no lanes, and a page file. */
  fetchingFrom(file: PagesFromFile): this {
    this.fetch.begin(this.placer, file);
    return this;
  }

  /** Lanes of an attempt, and QEMU loaded. */
  async fetching(attempt = 1): Promise<this> {
    this.lanes(attempt);
    this.fetch.begin(this.placer);
    await settled();
    return this;
  }

  lanes(attempt: number): void {
    this.urgent = new FakePageLink();
    this.background = new FakePageLink();
    this.#sequences = { urgent: 0, background: 0 };
    this.fetch.attach("urgent", attempt, this.urgent);
    this.fetch.attach("background", attempt, this.background);
  }

  /** A good frame of these runs arrives. */
  pages(lane: "urgent" | "background", runs: Runs, block = 0): Buffer {
    const frame = pagesFrame(this.#sequences[lane]++, runs, { block });
    this[lane].arrive(frame);
    return frame;
  }

  served(ramDigest: string | null): void {
    this.urgent.arrive(encodePageMessage({ kind: "served", ramDigest }));
  }

  /** What was said in the urgent lane, of one kind. */
  said<K extends PageMessage["kind"]>(kind: K): Extract<PageMessage, { kind: K }>[] {
    return this.urgent.said.filter((each) => each.kind === kind) as Extract<
      PageMessage,
      { kind: K }
    >[];
  }

  /** Flushes wait until the returned function is called. */
  holdFlushes(): () => void {
    const gate = new Deferred();
    this.placer.gate = gate.promise;
    return () => {
      gate.resolve();
    };
  }
}

export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * From frames to QEMU: verify, put in order, re-encode, feed, hash what was fed.
 *
 * Credit goes back to the source when the kernel has taken the bytes for QEMU, so a QEMU that
 * loads slowly slows the source, and what is buffered here stays within the credit given.
 */
import { assert, Deferred } from "@vmferry/core";
import { PageHashes } from "@vmferry/agent";
import {
  FrameEncoding,
  FrameKind,
  limits,
  openFrame,
  RunTable,
  violation,
  type FrameHeader,
} from "@vmferry/protocol";
import {
  RamEncoder,
  StreamDecoder,
  type RamBlock,
  type RamSection,
  type StreamHandler,
} from "@vmferry/qemu";
import { FeedBuffer } from "./feed-buffer.ts";
import { inflatePages } from "./inflate-pages.ts";
import { PassGate } from "./pass-gate.ts";
import type { StreamSink } from "./qemu-sink.ts";
import { ZeroFeed } from "./zero-feed.ts";

const { PAGE_BYTES } = limits;
/** Frames that wait here; small ones would otherwise take more memory than their credit. */
const FRAMES_MAX = 65_536;
/** Frames received between two calls of `onGarbage`. */
const GARBAGE_BYTES = 16 * 1024 * 1024;
/** Credit is returned in pieces of at least this much while there is more to do. */
const CREDIT_BYTES_MIN = 512 * 1024;

interface Arrived {
  readonly header: FrameHeader;
  readonly frame: Buffer;
  readonly pass: number;
  readonly barrier: boolean;
}

export interface RamReceiverOptions {
  readonly sink: StreamSink;
  readonly connections: number;
  readonly creditBytes: number;
  readonly hashSeed: string;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  /** RAM that the definition of the guest allows, ROMs and video memory included. */
  readonly ramBytesMax: number;
  readonly onCredit: (bytes: number) => void;
  /** Called now and then: frames that were fed are garbage. */
  readonly onGarbage: () => void;
}

export interface ReceivedCounters {
  wireBytes: number;
  fedPages: number;
  zeroPages: number;
}

export class RamReceiver {
  readonly counters: ReceivedCounters = { wireBytes: 0, fedPages: 0, zeroPages: 0 };
  /** All of RAM was fed. Rejects never; a failure ends `run`. */
  readonly ramEnded = new Deferred();
  readonly #options: RamReceiverOptions;
  readonly #gate: PassGate<Arrived>;
  readonly #sequences: number[];
  readonly #queue: Arrived[] = [];
  readonly #prelude: StreamDecoder;
  /** Records of the prelude that are on their way to QEMU. */
  readonly #records: Buffer[] = [];
  readonly #runs = new RunTable();
  readonly #pool: FeedBuffer[] = [];
  #ram: { hashes: PageHashes; encoder: RamEncoder; zeros: ZeroFeed } | null = null;
  #owedBytes = 0;
  #creditBytes = 0;
  #garbageBytes = 0;
  #unfedFrames = 0;
  #wake: (() => void) | null = null;
  #stopped = false;

  constructor(options: RamReceiverOptions) {
    this.#options = options;
    this.#sequences = Array.from({ length: options.connections }, () => 0);
    this.#gate = new PassGate<Arrived>(options.connections, (arrived) => {
      this.#queue.push(arrived);
    });
    this.#prelude = new StreamDecoder(
      preludeHandler({
        record: (bytes) => this.#records.push(Buffer.from(bytes)),
        ramStart: ({ sectionId, blocks }) => {
          this.#open(sectionId, blocks);
        },
      }),
    );
  }

  get totalBytes(): number {
    return (this.#ram?.hashes.pages ?? 0) * PAGE_BYTES;
  }

  /** Digest over what QEMU was fed. */
  digest(): string {
    assert(this.#ram !== null, "RAM was announced before it is digested");
    return this.#ram.hashes.digest();
  }

  /** A message of bulk connection `connection`. The buffer stays with the receiver. */
  arrived(connection: number, frame: Buffer): void {
    const header = openFrame(frame);
    if (header.sequence !== this.#sequences[connection]!++) throw violation("frame sequence");
    this.counters.wireBytes += frame.length;
    this.#becomesGarbage(frame.length);
    const ordered = header.kind === FrameKind.STREAM || header.kind === FrameKind.RAM_END;
    if (ordered && connection !== 0) {
      throw violation("ordered frame on another connection than the first");
    }
    if (costsCredit(header)) this.#owedBytes += frame.length;
    if (this.#owedBytes > this.#options.creditBytes) throw violation("credit exceeded");
    const barrier = header.kind === FrameKind.BARRIER;
    if (!barrier && ++this.#unfedFrames > FRAMES_MAX) throw violation("too many frames at once");
    this.#gate.push(connection, { header, frame, pass: header.pass, barrier });
    this.#wake?.();
  }

  /** Feeds QEMU until `stop`; rejects when a frame is wrong or QEMU does not take it. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      const arrived = this.#queue.shift();
      if (arrived !== undefined) {
        this.#unfedFrames--;
        await this.#feed(arrived);
        continue;
      }
      this.#returnCredit(1);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#queue.length = 0;
    this.#wake?.();
  }

  async #feed({ header, frame }: Arrived): Promise<void> {
    const written = (): void => {
      if (costsCredit(header)) this.#creditBytes += frame.length;
      this.#returnCredit(this.#queue.length === 0 ? 1 : CREDIT_BYTES_MIN);
    };
    switch (header.kind) {
      case FrameKind.STREAM:
        return this.#feedStream(frame.subarray(limits.FRAME_HEADER_BYTES), written);
      case FrameKind.PAGES:
        return this.#feedPages(header, frame, written);
      case FrameKind.RAM_END: {
        if (this.ramEnded.settled) throw violation("the end of RAM twice");
        const out = Buffer.alloc(64);
        const end = this.#known().encoder.emptyEnd(out, 0);
        await this.#options.sink.write(out.subarray(0, end), () => undefined);
        this.ramEnded.resolve();
        return;
      }
      case FrameKind.BARRIER:
        return;
    }
  }

  async #feedStream(bytes: Buffer, written: () => void): Promise<void> {
    if (this.ramEnded.settled) {
      await this.#options.sink.write(bytes, written);
      return;
    }
    // Until RAM ends the bytes are commands and section starts. QEMU gets whole records that were
    // understood: half a page record at the end of a frame would swallow the pages that follow.
    this.#prelude.push(bytes);
    const records = Buffer.concat(this.#records.splice(0));
    if (records.length === 0) written();
    else await this.#options.sink.write(records, written);
  }

  async #feedPages(header: FrameHeader, frame: Buffer, written: () => void): Promise<void> {
    const { hashes, encoder, zeros } = this.#known();
    const { block } = header;
    if (block >= hashes.blocks.length) throw violation("frame of a block that is not there");
    if (this.ramEnded.settled) throw violation("pages after the end of RAM");
    this.#runs.open(frame, header, hashes.blockPages(block));
    const { data, start } = this.#pageData(header, frame);
    const feed = this.#pool.pop() ?? new FeedBuffer();
    feed.open(encoder, block);
    let offset = start;
    for (let run = 0; run < this.#runs.count; run++) {
      const first = this.#runs.first(run);
      const pages = this.#runs.pages(run);
      if (this.#runs.zero(run)) {
        this.counters.zeroPages += pages;
        hashes.setZero(hashes.indexOf(block, first), pages);
        zeros.add(block, first, pages);
        continue;
      }
      for (let page = first; page < first + pages; page++) {
        const slot = feed.add(page, data, offset);
        hashes.set(hashes.indexOf(block, page), hashes.hash(slot));
        offset += PAGE_BYTES;
      }
      this.counters.fedPages += pages;
    }
    // The run table is not looked at after this point: the next frame reuses it.
    await zeros.write(this.#options.sink);
    if (feed.pages === 0) {
      this.#pool.push(feed);
      written();
      return;
    }
    await this.#options.sink.write(feed.finish(), () => {
      this.#pool.push(feed);
      written();
    });
  }

  /** The data pages of an opened frame, and where in the buffer they begin. */
  #pageData(header: FrameHeader, frame: Buffer): { data: Buffer; start: number } {
    const start = this.#runs.dataOffset;
    if (header.encoding === FrameEncoding.RAW) return { data: frame, start };
    if (!this.#options.compression) throw violation("zstd without its feature");
    const data = inflatePages(frame.subarray(start), this.#runs.dataPages);
    this.#becomesGarbage(data.length);
    return { data, start: 0 };
  }

  #becomesGarbage(bytes: number): void {
    this.#garbageBytes += bytes;
    if (this.#garbageBytes < GARBAGE_BYTES) return;
    this.#garbageBytes = 0;
    this.#options.onGarbage();
  }

  #open(sectionId: number, blocks: readonly RamBlock[]): void {
    let total = 0;
    for (const block of blocks) total += block.lengthBytes;
    if (total > this.#options.ramBytesMax) throw violation("more RAM than the offer named");
    const hashes = new PageHashes(blocks, this.#options.hashSeed);
    const encoder = new RamEncoder({ sectionId, blocks });
    this.#ram = { hashes, encoder, zeros: new ZeroFeed(encoder) };
  }

  #known(): { hashes: PageHashes; encoder: RamEncoder; zeros: ZeroFeed } {
    if (this.#ram === null) throw violation("pages before RAM was announced");
    return this.#ram;
  }

  #returnCredit(bytesMin: number): void {
    const bytes = this.#creditBytes;
    if (bytes < bytesMin) return;
    this.#creditBytes = 0;
    this.#owedBytes -= bytes;
    this.#options.onCredit(bytes);
  }
}

function costsCredit(header: FrameHeader): boolean {
  return header.kind === FrameKind.PAGES || header.kind === FrameKind.STREAM;
}

interface Prelude {
  readonly record: (bytes: Uint8Array) => void;
  readonly ramStart: (section: RamSection) => void;
}

/** Nothing but commands, headers and the RAM block list may travel as opaque bytes before RAM ends. */
function preludeHandler({ record, ramStart }: Prelude): StreamHandler {
  const misplaced = (): never => {
    throw violation("RAM records in opaque bytes");
  };
  return {
    verbatim: record,
    ramStart,
    page: misplaced,
    zeroPage: misplaced,
    partEnd: () => undefined,
    ramEnd: misplaced,
    deviceState: misplaced,
  };
}

/**
 * From frames to QEMU: put in order, re-encode, feed, hash what was fed. A frame is done when the
 * kernel has taken its bytes for QEMU.
 */
import { assert, Deferred } from "@vmferry/core";
import { PageHashes } from "@vmferry/agent";
import {
  deviceStateBytesOf,
  FrameEncoding,
  FrameKind,
  limits,
  RunTable,
  violation,
  type FrameHeader,
} from "@vmferry/protocol";
import {
  encodePostcopyAdvise,
  RamEncoder,
  RECORD,
  StreamDecoder,
  type RamBlock,
  type RamSection,
  type StreamHandler,
} from "@vmferry/qemu";
import type { ArrivedFrame, FrameTarget } from "../bulk/bulk-receiver.ts";
import { Inflater } from "../bulk/inflate-data.ts";
import { SwitchOver } from "../postcopy/switch-over.ts";
import { FeedBuffer } from "./feed-buffer.ts";
import { PassGate } from "./pass-gate.ts";
import type { StreamSink } from "./qemu-sink.ts";
import { ZeroFeed } from "./zero-feed.ts";

const { PAGE_BYTES } = limits;
/** Frames that wait here; small ones would otherwise take more memory than their credit. */
const FRAMES_MAX = 65_536;

interface Arrived extends ArrivedFrame {
  readonly pass: number;
  readonly barrier: boolean;
}

export interface RamReceiverOptions {
  readonly sink: StreamSink;
  readonly connections: number;
  readonly hashSeed: string;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  /** QEMU can take memory after the hand-over, and is told that it may have to. */
  readonly postCopy: boolean;
  /** RAM that the definition of the guest allows, ROMs and video memory included. */
  readonly ramBytesMax: number;
}

export interface ReceivedCounters {
  fedPages: number;
  zeroPages: number;
}

export class RamReceiver implements FrameTarget {
  readonly counters: ReceivedCounters = { fedPages: 0, zeroPages: 0 };
  /** All of RAM was fed that comes before the hand-over. Rejects never; a failure ends `run`. */
  readonly ramEnded = new Deferred();
  /** Some of memory follows: settled before the package is fed, and most often before the stun. */
  readonly lacking = new Deferred<RamSection>();
  /** The package of device state was fed: what is missing may follow. Never rejects either. */
  readonly packaged = new Deferred();
  readonly #options: RamReceiverOptions;
  readonly #inflater = new Inflater();
  readonly #gate: PassGate<Arrived>;
  readonly #queue: Arrived[] = [];
  readonly #prelude: StreamDecoder;
  /** Records of the prelude that are on their way to QEMU. */
  readonly #records: Buffer[] = [];
  readonly #runs = new RunTable();
  readonly #pool: FeedBuffer[] = [];
  #ram: Ram | null = null;
  /** Of the last pages that were fed. */
  #pagesPass = -1;
  #switchOver: SwitchOver | null = null;
  #unfedFrames = 0;
  #wake: (() => void) | null = null;
  #stopped = false;

  constructor(options: RamReceiverOptions) {
    this.#options = options;
    this.#gate = new PassGate<Arrived>(options.connections, (arrived) => {
      this.#queue.push(arrived);
    });
    this.#prelude = new StreamDecoder(
      preludeHandler({
        record: (bytes) => {
          const isRamStart = bytes[0] === RECORD.START;
          if (options.postCopy && isRamStart) this.#records.push(encodePostcopyAdvise());
          this.#records.push(Buffer.from(bytes));
        },
        ramStart: (section) => {
          this.#open(section);
        },
      }),
    );
  }

  get totalBytes(): number {
    return (this.#ram?.hashes.pages ?? 0) * PAGE_BYTES;
  }

  /** None before they were announced. */
  get blocks(): readonly RamBlock[] {
    return this.#ram?.section.blocks ?? [];
  }

  /** Where some of memory comes after the hand-over; null while, or if, all of it comes before. */
  get switchOver(): SwitchOver | null {
    return this.#switchOver?.hasBegun === true ? this.#switchOver : null;
  }

  /** Digest over what QEMU was fed. */
  digest(): string {
    assert(this.#ram !== null, "RAM was announced before it is digested");
    return this.#ram.hashes.digest();
  }

  arrived(arrived: ArrivedFrame): void {
    const { header, connection } = arrived;
    const isOrdered = header.kind !== FrameKind.PAGES && header.kind !== FrameKind.BARRIER;
    if (isOrdered && connection !== 0) {
      throw violation("ordered frame on another connection than the first");
    }
    const barrier = header.kind === FrameKind.BARRIER;
    if (!barrier && ++this.#unfedFrames > FRAMES_MAX) throw violation("too many frames at once");
    this.#gate.push(connection, { ...arrived, pass: header.pass, barrier });
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

  async #feed({ header, frame, done: written }: Arrived): Promise<void> {
    switch (header.kind) {
      case FrameKind.STREAM:
        return this.#feedStream(frame.subarray(limits.FRAME_HEADER_BYTES), written);
      case FrameKind.PAGES:
        return this.#feedPages(header, frame, written);
      case FrameKind.MISSING:
        await this.#options.sink.write(this.#lack(header, frame), written);
        return;
      case FrameKind.POSTCOPY:
        await this.#beginPackage(header, frame);
        written();
        return;
      case FrameKind.RAM_END: {
        if (this.ramEnded.settled) throw violation("the end of RAM twice");
        if (this.#switchOver !== null) throw violation("the end of RAM behind missing pages");
        const out = Buffer.alloc(64);
        const end = this.#known().encoder.emptyEnd(out, 0);
        await this.#options.sink.write(out.subarray(0, end), () => undefined);
        this.ramEnded.resolve();
        return;
      }
      case FrameKind.BARRIER:
        return;
      case FrameKind.DISK:
      case FrameKind.DISK_END:
        throw violation("frame of a disk among those of memory");
    }
  }

  #lack(header: FrameHeader, frame: Buffer): Buffer {
    const { hashes } = this.#known();
    const { block } = header;
    if (block >= hashes.blocks.length) throw violation("frame of a block that is not there");
    const switchOver = this.#switchOverAt(header);
    this.#runs.open(frame, header, hashes.blockPages(block));
    return switchOver.lack(block, this.#runs);
  }

  async #beginPackage(header: FrameHeader, frame: Buffer): Promise<void> {
    const switchOver = this.#switchOverAt(header);
    const head = switchOver.begin(deviceStateBytesOf(frame));
    await this.#options.sink.write(head, () => undefined);
    this.ramEnded.resolve();
  }

  #switchOverAt({ pass }: FrameHeader): SwitchOver {
    if (!this.#options.postCopy) throw violation("post-copy that was not agreed on");
    if (this.ramEnded.settled) throw violation("missing pages after the end of RAM");
    // Other connections may still bring pages of the same pass, and nobody knows which came last.
    if (pass === this.#pagesPass) throw violation("missing pages in a pass with others");
    const { section, hashes } = this.#known();
    this.#switchOver ??= new SwitchOver(section, hashes);
    this.lacking.resolve(section);
    return this.#switchOver;
  }

  async #feedStream(bytes: Buffer, written: () => void): Promise<void> {
    const switchOver = this.switchOver;
    if (switchOver !== null) {
      const end = switchOver.take(bytes.length);
      await this.#options.sink.write(bytes, written);
      if (end === null) return;
      await this.#options.sink.write(end, () => undefined);
      this.packaged.resolve();
      return;
    }
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
    if (this.#switchOver !== null) throw violation("pages behind missing ones");
    this.#pagesPass = header.pass;
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
    const data = this.#inflater.inflate(frame.subarray(start), this.#runs.dataPages * PAGE_BYTES);
    return { data, start: 0 };
  }

  #open(section: RamSection): void {
    const { blocks } = section;
    let total = 0;
    for (const block of blocks) total += block.lengthBytes;
    if (total > this.#options.ramBytesMax) throw violation("more RAM than the offer named");
    const hashes = new PageHashes(blocks, this.#options.hashSeed);
    const encoder = new RamEncoder(section);
    this.#ram = { section, hashes, encoder, zeros: new ZeroFeed(encoder) };
  }

  #known(): Ram {
    if (this.#ram === null) throw violation("pages before RAM was announced");
    return this.#ram;
  }
}

interface Ram {
  readonly section: RamSection;
  readonly hashes: PageHashes;
  readonly encoder: RamEncoder;
  readonly zeros: ZeroFeed;
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

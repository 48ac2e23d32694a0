/**
 * Places missing pages in a QEMU that is in post-copy. It takes each page once: a second copy would
 * end it. What is collected goes out as whole sections, so that two callers may flush in turn.
 *
 * What QEMU has asked for goes by its urgent channel, where nothing is in the way. Nothing else may:
 * at the end of RAM QEMU waits for the pages that it has asked for, and drops what else is there.
 */
import { assert } from "@vmferry/core";
import type { PageHashes, PageSet } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import { encodeEof, RamEncoder, type RamSection } from "@vmferry/qemu";
import { FeedBuffer } from "../ram/feed-buffer.ts";
import type { StreamSink } from "../ram/qemu-sink.ts";
import { AskedPages } from "./asked-pages.ts";
import type { PagePlacer } from "./page-placer.ts";

const { FRAME_PAGES_MAX } = limits;
const ZEROS_BYTES = 16 * 1024;
/** Room for a record that names its block, and for the section's end. */
const ZEROS_RESERVE_BYTES = 512;

export interface QemuPagePlacerOptions {
  readonly section: RamSection;
  readonly missing: PageSet;
  /** Null where an earlier life has placed a part of memory. */
  readonly hashes: PageHashes | null;
  readonly sink: StreamSink;
  /** QEMU's channel for pages that it has asked for; null where it has none. */
  readonly urgentSink: StreamSink | null;
  readonly isAsked: (block: number, page: number) => boolean;
  readonly onPlaced: (block: number, page: number) => void;
  /** QEMU has said that it has everything; rejects when it will not. */
  readonly shut: Promise<void>;
}

interface Section {
  readonly bytes: Buffer;
  readonly done: () => void;
}

export class QemuPagePlacer implements PagePlacer {
  readonly missing: PageSet;
  readonly #options: QemuPagePlacerOptions;
  /** One each: a section of pages is open while one of zero pages is. */
  readonly #encoder: RamEncoder;
  readonly #zeroEncoder: RamEncoder;
  readonly #asked: AskedPages | null;
  readonly #pool: FeedBuffer[] = [];
  #sections: Section[] = [];
  #feed: { readonly buffer: FeedBuffer; readonly block: number } | null = null;
  #zeros: { readonly bytes: Buffer; end: number } | null = null;
  #ended: Promise<void> | null = null;

  constructor(options: QemuPagePlacerOptions) {
    this.#options = options;
    this.missing = options.missing;
    this.#encoder = new RamEncoder(options.section);
    this.#zeroEncoder = new RamEncoder(options.section);
    const { section, urgentSink } = options;
    this.#asked = urgentSink === null ? null : new AskedPages(section, urgentSink);
  }

  page(block: number, page: number, data: Buffer, offset: number): void {
    const asked = this.#askedFor(block, page);
    this.#take(block, page);
    const slot =
      asked === null
        ? this.#feedFor(block).add(page, data, offset)
        : asked.add(block, page, data, offset);
    const { hashes } = this.#options;
    hashes?.set(hashes.indexOf(block, page), hashes.hash(slot));
  }

  zeroPage(block: number, page: number): void {
    const asked = this.#askedFor(block, page);
    this.#take(block, page);
    const { hashes } = this.#options;
    hashes?.setZero(hashes.indexOf(block, page), 1);
    if (asked !== null) {
      asked.addZero(block, page);
      return;
    }
    let zeros = this.#zeros;
    if (zeros === null) {
      const bytes = Buffer.allocUnsafe(ZEROS_BYTES);
      this.#zeroEncoder.forgetBlock();
      zeros = { bytes, end: this.#zeroEncoder.beginPart(bytes, 0) };
      this.#zeros = zeros;
    }
    zeros.end = this.#zeroEncoder.zeroPage(zeros.bytes, zeros.end, block, page);
    if (zeros.end > ZEROS_BYTES - ZEROS_RESERVE_BYTES) this.#closeZeros();
  }

  async flush(): Promise<void> {
    this.#closeFeed();
    this.#closeZeros();
    const sections = this.#sections;
    this.#sections = [];
    // All of them are handed over at once: nobody else's pages have to wait for these.
    await Promise.all([
      this.#asked?.flush(),
      ...sections.map(({ bytes, done }) => this.#options.sink.write(bytes, done)),
    ]);
  }

  digest(): string | null {
    return this.#options.hashes?.digest() ?? null;
  }

  end(): Promise<void> {
    assert(this.missing.count === 0, "RAM ends when nothing is missing");
    return (this.#ended ??= this.#end());
  }

  async #end(): Promise<void> {
    await this.flush();
    const out = Buffer.alloc(RamEncoder.emptyEndBytes);
    this.#encoder.emptyEnd(out, 0);
    await this.#options.sink.write(Buffer.concat([out, encodeEof()]), () => undefined);
    await this.#options.shut;
  }

  #askedFor(block: number, page: number): AskedPages | null {
    return this.#options.isAsked(block, page) ? this.#asked : null;
  }

  #take(block: number, page: number): void {
    assert(this.missing.remove(block, page), "a page that is placed was missing");
    this.#options.onPlaced(block, page);
  }

  #feedFor(block: number): FeedBuffer {
    const open = this.#feed;
    if (open?.block === block && open.buffer.pages < FRAME_PAGES_MAX) return open.buffer;
    this.#closeFeed();
    const buffer = this.#pool.pop() ?? new FeedBuffer();
    buffer.open(this.#encoder, block);
    this.#feed = { buffer, block };
    return buffer;
  }

  #closeFeed(): void {
    if (this.#feed === null) return;
    const { buffer } = this.#feed;
    this.#feed = null;
    this.#sections.push({
      bytes: buffer.finish(),
      done: () => {
        this.#pool.push(buffer);
      },
    });
  }

  #closeZeros(): void {
    if (this.#zeros === null) return;
    const { bytes, end } = this.#zeros;
    this.#zeros = null;
    this.#sections.push({
      bytes: bytes.subarray(0, this.#zeroEncoder.endPart(bytes, end)),
      done: () => undefined,
    });
  }
}

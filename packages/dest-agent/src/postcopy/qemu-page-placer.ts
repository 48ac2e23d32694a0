/**
 * Places missing pages in a QEMU that is in post-copy. It takes each page once: a second copy would
 * end it. What is collected goes out as whole sections, so that two callers may flush in turn.
 */
import { assert } from "@vmferry/core";
import type { PageHashes, PageSet } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import { encodeEof, RamEncoder, type RamSection } from "@vmferry/qemu";
import { FeedBuffer } from "../ram/feed-buffer.ts";
import type { StreamSink } from "../ram/qemu-sink.ts";
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
  }

  page(block: number, page: number, data: Buffer, offset: number): void {
    this.#take(block, page);
    const slot = this.#feedFor(block).add(page, data, offset);
    const { hashes } = this.#options;
    hashes?.set(hashes.indexOf(block, page), hashes.hash(slot));
  }

  zeroPage(block: number, page: number): void {
    this.#take(block, page);
    const { hashes } = this.#options;
    hashes?.setZero(hashes.indexOf(block, page), 1);
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
    await Promise.all(sections.map(({ bytes, done }) => this.#options.sink.write(bytes, done)));
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

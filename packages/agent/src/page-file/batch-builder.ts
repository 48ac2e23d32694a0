/**
 * A batch while it is made. Its buffer is made once and used again and again; a page is sealed into
 * its place when it comes, so that whoever brought it may use its memory for something else.
 */
import { assert } from "@vmferry/core";
import { TAG_BYTES, type FileSeal } from "./file-seal.ts";
import { packPage } from "./page-codec.ts";
import {
  BATCH_ENTRIES_MAX,
  BATCH_PAGES_MAX,
  ENTRY_BYTES,
  PAGE_BYTES,
  RECORD_HEAD_BYTES,
} from "./page-file-limits.ts";
import {
  encodeHead,
  encodePageEntry,
  encodeZeroEntry,
  recordBytes,
  sealedIndexBytes,
  type RecordHead,
} from "./record-codec.ts";

const STORED_BYTES_MAX = PAGE_BYTES + TAG_BYTES;

export interface BatchBuilderOptions {
  readonly seal: FileSeal;
  /** Of sealed pages; the index comes on top. */
  readonly dataBytesMax: number;
  readonly compress: boolean;
}

/** The record before, as this one has to know it. */
export interface RecordBefore {
  readonly sequence: number;
  readonly syncedBytes: number;
  readonly previousTag: Uint8Array;
}

export function batchBufferBytes(dataBytesMax: number): number {
  return RECORD_HEAD_BYTES + dataBytesMax + BATCH_ENTRIES_MAX * ENTRY_BYTES + TAG_BYTES;
}

export class BatchBuilder {
  /** Pages with data, and all pages. */
  dataPages = 0;
  pages = 0;
  readonly #options: BatchBuilderOptions;
  readonly #buffer: Buffer;
  readonly #index = Buffer.alloc(BATCH_ENTRIES_MAX * ENTRY_BYTES);
  readonly #pageContext = Buffer.alloc(8);
  readonly #context = Buffer.alloc(RECORD_HEAD_BYTES + TAG_BYTES);
  #offset = 0;
  #entries = 0;
  #dataBytes = 0;

  constructor(options: BatchBuilderOptions) {
    this.#options = options;
    this.#buffer = Buffer.alloc(batchBufferBytes(options.dataBytesMax));
  }

  get bytes(): number {
    return recordBytes(this.#head({ sequence: 0, syncedBytes: 0 }));
  }

  get endOffset(): number {
    return this.#offset + this.bytes;
  }

  get isEmpty(): boolean {
    return this.#entries === 0;
  }

  /** Whether one more page, or run of zero pages of any length, might have no place. */
  get isFull(): boolean {
    return (
      this.#dataBytes + STORED_BYTES_MAX > this.#options.dataBytesMax ||
      this.#entries === BATCH_ENTRIES_MAX ||
      this.pages >= BATCH_PAGES_MAX
    );
  }

  /** An empty batch for that place of the file. */
  start(offset: number): void {
    this.#offset = offset;
    this.#entries = 0;
    this.#dataBytes = 0;
    this.dataPages = 0;
    this.pages = 0;
  }

  addPage(page: number, bytes: Uint8Array): void {
    assert(!this.isFull, "a page has a place in its batch");
    const stored = this.#options.compress ? packPage(bytes) : bytes;
    const at = RECORD_HEAD_BYTES + this.#dataBytes;
    const context = this.#pageContext;
    writePageContext(context, page);
    const place = { purpose: "page", offset: this.#offset + at, context } as const;
    this.#options.seal.seal(place, stored, this.#buffer, at);
    this.#dataBytes += stored.length + TAG_BYTES;
    const entry = { page, storedBytes: stored.length };
    encodePageEntry(this.#index, this.#entries++ * ENTRY_BYTES, entry);
    this.dataPages++;
    this.pages++;
  }

  /** Returns how many of them have a place: one at least. */
  addZeros(page: number, count: number): number {
    assert(!this.isFull && count > 0, "zero pages have a place in their batch");
    const taken = Math.min(count, BATCH_PAGES_MAX - this.pages);
    encodeZeroEntry(this.#index, this.#entries++ * ENTRY_BYTES, { page, count: taken });
    this.pages += taken;
    return taken;
  }

  /** The whole record, until the next `start`. */
  finish(before: RecordBefore): Buffer {
    const head = this.#head(before);
    encodeHead(head, this.#buffer);
    this.#context.set(this.#buffer.subarray(0, RECORD_HEAD_BYTES));
    this.#context.set(before.previousTag, RECORD_HEAD_BYTES);
    const indexBytes = sealedIndexBytes(head) - TAG_BYTES;
    this.#index.fill(0, this.#entries * ENTRY_BYTES, indexBytes);
    const place = { purpose: "record", offset: this.#offset, context: this.#context } as const;
    const index = this.#index.subarray(0, indexBytes);
    this.#options.seal.seal(place, index, this.#buffer, RECORD_HEAD_BYTES + this.#dataBytes);
    return this.#buffer.subarray(0, recordBytes(head));
  }

  #head({ sequence, syncedBytes }: Omit<RecordBefore, "previousTag">): RecordHead {
    const [entries, dataBytes] = [this.#entries, this.#dataBytes];
    return { kind: "batch", sequence, syncedBytes, entries, dataBytes };
  }
}

/** What a page is sealed with: its number. */
export function writePageContext(context: Buffer, page: number): void {
  context.writeUInt32BE(Math.floor(page / 2 ** 32));
  context.writeUInt32BE(page % 2 ** 32, 4);
}

/** Gets pages out of a file whose records a chain has accepted, and checks each one again. */
import { writePageContext } from "./batch-builder.ts";
import { TAG_BYTES, type FileSeal } from "./file-seal.ts";
import { unpackPage } from "./page-codec.ts";
import { pageFileDamaged } from "./page-file-error.ts";
import { PAGE_BYTES, RECORD_HEAD_BYTES } from "./page-file-limits.ts";
import { readFully, type ReadableFile } from "./page-files.ts";
import type { PageLocation } from "./page-locations.ts";
import { decodeHead, decodeIndex, recordBytes, sealedIndexBytes } from "./record-codec.ts";

/** One page of a batch, or a run of zero pages. */
export interface BatchPages {
  readonly page: number;
  readonly count: number;
  /** Null where it is not as it was sealed: `read` says more. */
  readonly content: Buffer | "zero" | null;
}

export interface BatchRange {
  readonly offset: number;
  readonly end: number;
}

export class StoredPages {
  readonly #path: string;
  readonly #seal: FileSeal;
  readonly #pages: number;
  readonly #sealedPage = Buffer.alloc(PAGE_BYTES + TAG_BYTES);
  readonly #pageContext = Buffer.alloc(8);
  /** As long as the longest batch so far. */
  #batch = Buffer.alloc(0);

  constructor(path: string, seal: FileSeal, pages: number) {
    this.#path = path;
    this.#seal = seal;
    this.#pages = pages;
  }

  /** Null where it is not as it was sealed. */
  async read(
    file: ReadableFile,
    page: number,
    { offset, storedBytes }: PageLocation,
  ): Promise<Buffer | null> {
    const sealed = this.#sealedPage.subarray(0, storedBytes + TAG_BYTES);
    const readBytes = await readFully(file, sealed, offset);
    return readBytes === sealed.length ? this.#open(page, offset, sealed) : null;
  }

  /** Null where its index is not as it was sealed. */
  async readBatch(file: ReadableFile, { offset, end }: BatchRange): Promise<BatchPages[] | null> {
    // The tag of the record before is the end of it.
    const bytes = TAG_BYTES + end - offset;
    if (this.#batch.length < bytes) this.#batch = Buffer.alloc(bytes);
    const buffer = this.#batch.subarray(0, bytes);
    if ((await readFully(file, buffer, offset - TAG_BYTES)) < bytes) return null;
    const record = buffer.subarray(TAG_BYTES);
    const headBytes = record.subarray(0, RECORD_HEAD_BYTES);
    const head = decodeHead(headBytes);
    if (head?.kind !== "batch" || recordBytes(head) !== record.length) return null;
    const context = Buffer.concat([headBytes, buffer.subarray(0, TAG_BYTES)]);
    const sealed = record.subarray(-sealedIndexBytes(head));
    const index = this.#seal.open({ purpose: "record", offset, context }, sealed);
    const entries = index === null ? null : decodeIndex(index, head, this.#pages);
    if (entries === null) return null;
    let at = RECORD_HEAD_BYTES;
    return entries.map(({ page, count, storedBytes }) => {
      if (storedBytes === 0) return { page, count, content: "zero" };
      const from = at;
      at += storedBytes + TAG_BYTES;
      return { page, count, content: this.#open(page, offset + from, record.subarray(from, at)) };
    });
  }

  #open(page: number, offset: number, sealed: Buffer): Buffer | null {
    const context = this.#pageContext;
    writePageContext(context, page);
    const stored = this.#seal.open({ purpose: "page", offset, context }, sealed);
    if (stored === null) return null;
    const unpacked = unpackPage(stored);
    if (unpacked !== null) return unpacked;
    // A holder of the key did this.
    throw pageFileDamaged(this.#path, offset, `page ${page} cannot be unpacked`);
  }
}

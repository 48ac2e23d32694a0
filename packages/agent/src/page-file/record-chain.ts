/**
 * What a reader knows of a file from its first record on. Each record is accepted when it is sealed
 * by a holder of the key, at this place of this file, as the successor of the one before, and says
 * something that can be: so whatever was changed, what was accepted is a beginning of what was
 * written. A page comes once in a file, and is therefore never an older one.
 */
import { createHash, type Hash } from "node:crypto";
import { TAG_BYTES, type FileSeal } from "./file-seal.ts";
import type { PageFileScope } from "./header-codec.ts";
import { FILE_BYTES_MAX, RECORD_HEAD_BYTES } from "./page-file-limits.ts";
import { PageLocations } from "./page-locations.ts";
import {
  decodeIndex,
  decodeMarkBody,
  recordBytes,
  type IndexEntry,
  type PageFileMark,
  type RecordHead,
} from "./record-codec.ts";

export interface RecordChainOptions {
  readonly seal: FileSeal;
  readonly scope: PageFileScope;
  readonly pages: number;
  readonly headerBytes: number;
  readonly headerTag: Buffer;
}

export class RecordChain {
  readonly locations: PageLocations;
  /** Where each batch begins. */
  readonly batchOffsets: number[] = [];
  /** Of the next record. */
  offset: number;
  /** So many bytes of the file everybody sees as they were written. */
  settledBytes = 0;
  dataPages = 0;
  zeroPages = 0;
  mark: PageFileMark | null = null;
  readonly #options: RecordChainOptions;
  readonly #digest: Hash;
  readonly #context = Buffer.alloc(RECORD_HEAD_BYTES + TAG_BYTES);
  #sequence = 0;

  constructor(options: RecordChainOptions) {
    this.#options = options;
    this.offset = options.headerBytes;
    this.locations = new PageLocations(options.pages);
    this.#context.set(options.headerTag, RECORD_HEAD_BYTES);
    this.#digest = createHash("sha256").update(options.headerTag);
  }

  /**
   * Takes the record at `offset`, or says why it is none. `headBytes` are those that `head` was
   * decoded from, `sealed` its sealed index.
   */
  accept(head: RecordHead, headBytes: Buffer, sealed: Buffer): string | null {
    if (this.mark !== null) return "there is something behind the complete-mark";
    if (head.sequence !== this.#sequence) return "it is not the next record";
    if (this.offset + recordBytes(head) > FILE_BYTES_MAX) return "the file is longer than any";
    this.#context.set(headBytes);
    const place = { purpose: "record", offset: this.offset, context: this.#context } as const;
    const index = this.#options.seal.open(place, sealed);
    if (index === null) return "a record is not as its writer sealed it";
    // What comes now only a holder of the key can have done.
    if (head.syncedBytes > this.offset || head.syncedBytes < this.settledBytes) {
      return "a record says that what is not there is durable";
    }
    const obstacle = head.kind === "batch" ? this.#acceptBatch(head, index) : this.#end(index);
    if (obstacle !== null) return obstacle;
    const tag = sealed.subarray(-TAG_BYTES);
    this.#context.set(tag, RECORD_HEAD_BYTES);
    this.#digest.update(tag);
    this.#sequence++;
    this.offset += recordBytes(head);
    this.settledBytes = head.kind === "batch" ? head.syncedBytes : this.offset;
    return null;
  }

  #acceptBatch(head: RecordHead, index: Buffer): string | null {
    const entries = decodeIndex(index, head, this.#options.pages);
    if (entries === null) return "a batch has an index that no batch can have";
    let offset = this.offset + RECORD_HEAD_BYTES;
    for (const [i, entry] of entries.entries()) {
      if (!this.#locate(entry, offset)) {
        for (const { page, count } of entries.slice(0, i)) this.#forget(page, count);
        return "a page comes twice";
      }
      if (entry.storedBytes > 0) offset += entry.storedBytes + TAG_BYTES;
    }
    this.batchOffsets.push(this.offset);
    for (const { count, storedBytes } of entries) {
      if (storedBytes > 0) this.dataPages++;
      else this.zeroPages += count;
    }
    return null;
  }

  /** False, and nothing done, where one of the pages is there. */
  #locate({ page, count, storedBytes }: IndexEntry, offset: number): boolean {
    for (let i = 0; i < count; i++) {
      if (this.locations.has(page + i)) {
        this.#forget(page, i);
        return false;
      }
      if (storedBytes > 0) this.locations.set(page, { offset, storedBytes });
      else this.locations.setZero(page + i);
    }
    return true;
  }

  #forget(page: number, count: number): void {
    for (let i = 0; i < count; i++) this.locations.clear(page + i);
  }

  #end(body: Buffer): string | null {
    const mark = decodeMarkBody(body);
    const isEqual =
      mark !== null &&
      mark.batches === this.#sequence &&
      mark.dataPages === this.dataPages &&
      mark.zeroPages === this.zeroPages &&
      mark.contentBytes === this.offset &&
      mark.digest === this.#digest.copy().digest("hex");
    if (!isEqual) return "the complete-mark speaks of another content";
    const { scope, pages } = this.#options;
    if (scope === "whole" && mark.dataPages + mark.zeroPages !== pages) {
      return "not every page is there, and the complete-mark says so";
    }
    this.mark = mark;
    return null;
  }
}

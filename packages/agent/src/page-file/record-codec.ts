/**
 * The records behind the header: batches of pages, and the complete-mark. A record is
 *
 *   head | sealed pages | index, padded, sealed
 *
 * where the seal of the index covers the head and the tag of the record before, too. So records
 * cannot be left out, change places or come from another file. `docs/page-file.md` has the bytes.
 */
import { assert } from "@vmferry/core";
import { TAG_BYTES } from "./file-seal.ts";
import {
  ALIGNMENT_BYTES,
  BATCH_DATA_BYTES_MAX,
  BATCH_ENTRIES_MAX,
  BATCH_PAGES_MAX,
  ENTRY_BYTES,
  FILE_BYTES_MAX,
  PAGE_BYTES,
  RECORD_HEAD_BYTES,
} from "./page-file-limits.ts";

const MARK = 0x76_6d_50_72; // "vmPr"
const ZERO_RUN = 0x8000_0000;
const COUNT_MASK = 0x7fff_ffff;
const MARK_BODY_BYTES = 64;
const DIGEST_BYTES = 32;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const KIND_NUMBERS: Readonly<Record<RecordKind, number>> = { batch: 1, complete: 2 };

export type RecordKind = "batch" | "complete";

export interface RecordHead {
  readonly kind: RecordKind;
  /** Of the file's records, from 0. */
  readonly sequence: number;
  /** So many bytes of the file were durable, and seen by everybody, before this was written. */
  readonly syncedBytes: number;
  /** Of the index; of a complete-mark none. */
  readonly entries: number;
  /** Of sealed pages. */
  readonly dataBytes: number;
}

/** What a complete-mark says of all records before it. */
export interface PageFileMark {
  readonly batches: number;
  readonly dataPages: number;
  readonly zeroPages: number;
  /** Of the file, without the mark. */
  readonly contentBytes: number;
  /** 64 hex digits: SHA-256 over the tags of the header and of every batch. */
  readonly digest: string;
}

export function encodeHead(head: RecordHead, target: Buffer): void {
  const { kind, sequence, syncedBytes, entries, dataBytes } = head;
  target.writeUInt32BE(MARK);
  target.writeUInt32BE(KIND_NUMBERS[kind], 4);
  target.writeBigUInt64BE(BigInt(sequence), 8);
  target.writeBigUInt64BE(BigInt(syncedBytes), 16);
  target.writeUInt32BE(entries, 24);
  target.writeUInt32BE(dataBytes, 28);
}

/** Null for what is no head, or one beyond the limits. */
export function decodeHead(bytes: Buffer): RecordHead | null {
  if (bytes.length !== RECORD_HEAD_BYTES || bytes.readUInt32BE() !== MARK) return null;
  const kind = kindOf(bytes.readUInt32BE(4));
  const sequence = Number(bytes.readBigUInt64BE(8));
  const syncedBytes = Number(bytes.readBigUInt64BE(16));
  const [entries, dataBytes] = [bytes.readUInt32BE(24), bytes.readUInt32BE(28)];
  if (kind === null || !Number.isSafeInteger(sequence) || syncedBytes > FILE_BYTES_MAX) return null;
  const isPossible =
    kind === "complete"
      ? entries === 0 && dataBytes === 0
      : entries >= 1 &&
        entries <= BATCH_ENTRIES_MAX &&
        dataBytes <= BATCH_DATA_BYTES_MAX &&
        dataBytes % ALIGNMENT_BYTES === 0;
  return isPossible ? { kind, sequence, syncedBytes, entries, dataBytes } : null;
}

/** Of the index or the mark's body, padded, with its tag. */
export function sealedIndexBytes({ kind, entries }: RecordHead): number {
  const bytes = kind === "complete" ? MARK_BODY_BYTES : entries * ENTRY_BYTES;
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES + TAG_BYTES;
}

export function recordBytes(head: RecordHead): number {
  return RECORD_HEAD_BYTES + head.dataBytes + sealedIndexBytes(head);
}

/** An entry of the index: one page of data, or a run of zero pages (`storedBytes` 0). */
export interface IndexEntry {
  readonly page: number;
  readonly count: number;
  /** As sealed, without the tag: `PAGE_BYTES`, or less where it is compressed. */
  readonly storedBytes: number;
}

export function encodePageEntry(
  target: Buffer,
  at: number,
  { page, storedBytes }: Pick<IndexEntry, "page" | "storedBytes">,
): void {
  writePage(target, at, page);
  target.writeUInt32BE(storedBytes, at + 8);
}

export function encodeZeroEntry(
  target: Buffer,
  at: number,
  { page, count }: Pick<IndexEntry, "page" | "count">,
): void {
  writePage(target, at, page);
  target.writeUInt32BE((ZERO_RUN | count) >>> 0, at + 8);
}

/** Null for an index that breaks a rule; which pages were there before is not looked at. */
export function decodeIndex(index: Buffer, head: RecordHead, pages: number): IndexEntry[] | null {
  assert(index.length === sealedIndexBytes(head) - TAG_BYTES, "an index has its length");
  const entries: IndexEntry[] = [];
  let [dataBytes, batchPages] = [0, 0];
  for (let at = 0; entries.length < head.entries; at += ENTRY_BYTES) {
    const page = index.readUInt32BE(at) * 2 ** 32 + index.readUInt32BE(at + 4);
    const word = index.readUInt32BE(at + 8);
    const isZero = (word & ZERO_RUN) !== 0;
    const count = isZero ? word & COUNT_MASK : 1;
    const storedBytes = isZero ? 0 : word;
    if (count === 0 || page + count > pages) return null;
    if (!isZero && !isStoredLength(storedBytes)) return null;
    batchPages += count;
    if (!isZero) dataBytes += storedBytes + TAG_BYTES;
    entries.push({ page, count, storedBytes });
  }
  const padding = index.subarray(head.entries * ENTRY_BYTES);
  const isWhole = dataBytes === head.dataBytes && batchPages <= BATCH_PAGES_MAX;
  return isWhole && padding.every((byte) => byte === 0) ? entries : null;
}

export function encodeMarkBody(mark: PageFileMark): Buffer {
  const body = Buffer.alloc(MARK_BODY_BYTES);
  body.writeBigUInt64BE(BigInt(mark.batches));
  body.writeBigUInt64BE(BigInt(mark.dataPages), 8);
  body.writeBigUInt64BE(BigInt(mark.zeroPages), 16);
  body.writeBigUInt64BE(BigInt(mark.contentBytes), 24);
  assert(body.write(mark.digest, 32, "hex") === DIGEST_BYTES, "a digest is 64 hex digits");
  return body;
}

/** Null for numbers that no file could have. */
export function decodeMarkBody(body: Buffer): PageFileMark | null {
  assert(body.length === MARK_BODY_BYTES, "a mark's body has its length");
  const numbers = [0, 8, 16, 24].map((at) => body.readBigUInt64BE(at));
  if (numbers.some((number) => number > MAX_SAFE)) return null;
  const [batches, dataPages, zeroPages, contentBytes] = numbers.map(Number);
  return {
    batches: batches!,
    dataPages: dataPages!,
    zeroPages: zeroPages!,
    contentBytes: contentBytes!,
    digest: body.toString("hex", 32),
  };
}

function isStoredLength(bytes: number): boolean {
  return bytes >= ALIGNMENT_BYTES && bytes <= PAGE_BYTES && bytes % ALIGNMENT_BYTES === 0;
}

function writePage(target: Buffer, at: number, page: number): void {
  target.writeUInt32BE(Math.floor(page / 2 ** 32), at);
  target.writeUInt32BE(page % 2 ** 32, at + 4);
}

function kindOf(number: number): RecordKind | null {
  const kinds = Object.keys(KIND_NUMBERS) as RecordKind[];
  return kinds.find((kind) => KIND_NUMBERS[kind] === number) ?? null;
}

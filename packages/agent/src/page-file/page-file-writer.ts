/**
 * Writes a page file: the header, then batches, each one when it is full, then the complete-mark.
 *
 *   add ─▶ current batch ─▶ queue ─▶ write … write, fsync ─▶ … ─▶ mark, fsync
 *
 *   - The memory of all batches together is bounded, and made at the start. Where none is free,
 *     `add` says so, and `room` resolves when one is.
 *   - The first failure is the last thing that happens: nothing is written any more, and what was
 *     written stays, for a reader can go on with it.
 *   - The mark is written when everything before it is durable.
 */
import { createHash, randomBytes, type Hash } from "node:crypto";
import { assert, Bitmap, Deferred, type Clock } from "@vmferry/core";
import { BatchBuilder, batchBufferBytes } from "./batch-builder.ts";
import { FileSeal, SALT_BYTES, TAG_BYTES } from "./file-seal.ts";
import { FileTurns } from "./file-turns.ts";
import { encodeHeader, pagesOf, type PageFileSubject } from "./header-codec.ts";
import { asPageFileError, pageFileClosed, type PageFileError } from "./page-file-error.ts";
import { BATCH_DATA_BYTES_MAX, PAGE_BYTES, RECORD_HEAD_BYTES } from "./page-file-limits.ts";
import type { AppendedFile, PageFiles } from "./page-files.ts";
import {
  encodeHead,
  encodeMarkBody,
  recordBytes,
  sealedIndexBytes,
  type PageFileMark,
  type RecordHead,
} from "./record-codec.ts";
import { SharedPageFiles } from "./shared-page-files.ts";

const TIMEOUT_MS = 15_000;
/** 256 pages as they are. */
const BATCH_DATA_BYTES = 256 * (PAGE_BYTES + TAG_BYTES);
const QUEUE_BYTES_MAX = 8 * 2 ** 20;
const SYNC_BYTES = 8 * 2 ** 20;

export interface PageFileWriterOptions {
  /** Of both agents, 32 bytes at least; nobody else has it. */
  readonly secret: Uint8Array;
  readonly files?: PageFiles;
  readonly clock?: Clock;
  /** Of each call of the file system. */
  readonly timeoutMs?: number;
  /** Memory of all batches together; two of them in any case. */
  readonly queueBytesMax?: number;
  /** Sealed pages of a batch. */
  readonly batchDataBytes?: number;
  /** What may be written before it is synced. */
  readonly syncBytes?: number;
  readonly compress?: boolean;
}

export interface PageFileProgress {
  /** Pages that were added, zero ones included. */
  readonly pages: number;
  /** Of them those that are durable, and that a reader therefore finds. */
  readonly durablePages: number;
  readonly writtenBytes: number;
  readonly durableBytes: number;
  /** Batches that are full and not written. */
  readonly queuedBatches: number;
}

interface DurableWaiter {
  readonly atBytes: number;
  readonly done: Deferred;
}

export class PageFileWriter {
  readonly #path: string;
  readonly #subject: PageFileSubject;
  readonly #file: AppendedFile;
  readonly #turns: FileTurns;
  readonly #seal: FileSeal;
  readonly #syncBytes: number;
  readonly #seen: Bitmap;
  readonly #free: BatchBuilder[];
  readonly #queue: BatchBuilder[] = [];
  readonly #waiters: DurableWaiter[] = [];
  readonly #digest: Hash;
  readonly #previousTag: Buffer;
  #current: BatchBuilder | null = null;
  #room: Deferred | null = null;
  #over: PageFileError | null = null;
  #isWorking = false;
  #sequence = 0;
  /** Where the batch after the current one, or the current one where it is empty, begins. */
  #nextOffset: number;
  #writtenBytes: number;
  #durableBytes: number;
  #counts = { pages: 0, dataPages: 0, writtenPages: 0, durablePages: 0 };

  /** Makes the file, and its directory. Rejects where there is one, and leaves none then. */
  static async create(
    path: string,
    subject: PageFileSubject,
    options: PageFileWriterOptions,
  ): Promise<PageFileWriter> {
    const { files = new SharedPageFiles(), timeoutMs = TIMEOUT_MS, clock } = options;
    const turns = new FileTurns(path, { timeoutMs, ...(clock && { clock }) });
    const salt = randomBytes(SALT_BYTES);
    const seal = new FileSeal(options.secret, salt);
    const checked = encodeHeader({ ...subject, salt, keyId: seal.keyId });
    const header = Buffer.concat([checked, Buffer.alloc(TAG_BYTES)]);
    const place = { purpose: "header", offset: 0, context: checked } as const;
    seal.seal(place, Buffer.alloc(0), header, checked.length);
    const file = await turns.run(async (signal) => {
      const made = await files.create(path);
      try {
        await writeFully(made, { bytes: header, position: 0, signal });
        await made.sync();
        // Nobody waits for it any more.
        signal.throwIfAborted();
        return made;
      } catch (error) {
        await made.close().catch(() => undefined);
        await files.remove(path).catch(() => undefined);
        throw error;
      }
    });
    return new PageFileWriter(options, { path, subject, file, turns, seal, header });
  }

  private constructor(
    { batchDataBytes = BATCH_DATA_BYTES, ...options }: PageFileWriterOptions,
    made: {
      readonly path: string;
      readonly subject: PageFileSubject;
      readonly file: AppendedFile;
      readonly turns: FileTurns;
      readonly seal: FileSeal;
      readonly header: Buffer;
    },
  ) {
    const dataBytesMax = Math.min(batchDataBytes, BATCH_DATA_BYTES_MAX);
    assert(dataBytesMax >= PAGE_BYTES + TAG_BYTES, "a batch has room for a page");
    this.#path = made.path;
    this.#subject = made.subject;
    this.#file = made.file;
    this.#turns = made.turns;
    this.#seal = made.seal;
    this.#syncBytes = options.syncBytes ?? SYNC_BYTES;
    this.#seen = new Bitmap(pagesOf(made.subject.blocks));
    const queueBytesMax = options.queueBytesMax ?? QUEUE_BYTES_MAX;
    const batches = Math.max(2, Math.floor(queueBytesMax / batchBufferBytes(dataBytesMax)));
    const builder = { seal: made.seal, dataBytesMax, compress: options.compress ?? false };
    this.#free = Array.from({ length: batches }, () => new BatchBuilder(builder));
    this.#previousTag = Buffer.from(made.header.subarray(-TAG_BYTES));
    this.#digest = createHash("sha256").update(this.#previousTag);
    this.#nextOffset = this.#writtenBytes = this.#durableBytes = made.header.length;
    this.#takeFree();
  }

  /** What ended it; null while it works, and where it was closed. */
  get failure(): PageFileError | null {
    return this.#over?.code === "page-file-closed" ? null : this.#over;
  }

  get progress(): PageFileProgress {
    const { pages, durablePages } = this.#counts;
    return {
      pages,
      durablePages,
      writtenBytes: this.#writtenBytes,
      durableBytes: this.#durableBytes,
      queuedBatches: this.#queue.length,
    };
  }

  /**
   * Takes a page, which comes once in a file, and copies it. False where the next one has no place
   * yet, and after a failure, when it does nothing: `room` tells which.
   */
  add(page: number, bytes: Uint8Array): boolean {
    if (this.#over !== null) return false;
    assert(bytes.length === PAGE_BYTES, "a page has its length");
    const batch = this.#current;
    assert(batch !== null, "room is awaited before another page");
    this.#count(page);
    batch.addPage(page, bytes);
    this.#counts.dataPages++;
    if (batch.isFull) this.#enqueue(batch);
    return this.#hasRoom;
  }

  /** As `add` for a run of zero pages; awaits room by itself, also before it takes the first. */
  async addZeros(first: number, count: number): Promise<void> {
    for (let done = 0; done < count;) {
      await this.room();
      const batch = this.#current;
      assert(batch !== null, "nobody else adds meanwhile");
      const taken = batch.addZeros(first + done, count - done);
      for (let i = 0; i < taken; i++) this.#count(first + done + i);
      done += taken;
      if (batch.isFull) this.#enqueue(batch);
    }
  }

  /** Until there is a place for the next page. Rejects where there never will be. */
  async room(): Promise<void> {
    if (this.#over !== null) throw this.#over;
    if (this.#current === null) await (this.#room ??= new Deferred()).promise;
  }

  /** Until all that was added is durable. */
  async flush(): Promise<void> {
    if (this.#over !== null) throw this.#over;
    if (this.#current?.isEmpty === false) this.#enqueue(this.#current);
    if (this.#durableBytes >= this.#nextOffset) return;
    const waiter = { atBytes: this.#nextOffset, done: new Deferred() };
    this.#waiters.push(waiter);
    await waiter.done.promise;
  }

  /**
   * The end, also where it rejects. `complete` says that nothing is missing, and resolves to the
   * mark when that is durable. Otherwise what is not written yet is dropped.
   */
  async close({ complete }: { readonly complete: boolean }): Promise<PageFileMark | null> {
    try {
      if (!complete) return null;
      await this.flush();
      return await this.#complete();
    } catch (error) {
      this.#end(asPageFileError(this.#path, error));
      throw error;
    } finally {
      this.#end(pageFileClosed(this.#path));
      // What counts is durable, or failed, by now: closing changes nothing.
      await this.#turns.end(() => this.#file.close());
    }
  }

  get #hasRoom(): boolean {
    return this.#current !== null;
  }

  #count(page: number): void {
    assert(page >= 0 && page < this.#seen.length, "a page of the guest");
    assert(!this.#seen.testAndSet(page), "a page comes once in a file");
    this.#counts.pages++;
  }

  #enqueue(batch: BatchBuilder): void {
    this.#nextOffset = batch.endOffset;
    this.#queue.push(batch);
    this.#takeFree();
    if (!this.#isWorking) void this.#work();
  }

  #takeFree(): void {
    this.#current = this.#free.pop() ?? null;
    this.#current?.start(this.#nextOffset);
  }

  /** The one loop that writes; it ends with the queue, and is begun again by what comes. */
  async #work(): Promise<void> {
    this.#isWorking = true;
    try {
      while (this.#over === null) {
        const batch = this.#queue.shift();
        if (batch !== undefined) await this.#write(batch);
        const unsyncedBytes = this.#writtenBytes - this.#durableBytes;
        if (unsyncedBytes >= this.#syncBytes || (unsyncedBytes > 0 && this.#queue.length === 0)) {
          await this.#sync();
        }
        if (this.#queue.length === 0) break;
      }
    } catch (error) {
      this.#end(asPageFileError(this.#path, error));
    } finally {
      this.#isWorking = false;
    }
  }

  async #write(batch: BatchBuilder): Promise<void> {
    const record = batch.finish({
      sequence: this.#sequence,
      syncedBytes: this.#durableBytes,
      previousTag: this.#previousTag,
    });
    await this.#append(record);
    this.#sequence++;
    this.#previousTag.set(record.subarray(-TAG_BYTES));
    this.#digest.update(this.#previousTag);
    this.#counts.writtenPages += batch.pages;
    this.#free.push(batch);
    if (this.#current !== null) return;
    this.#takeFree();
    this.#room?.resolve();
    this.#room = null;
  }

  async #append(record: Buffer): Promise<void> {
    const position = this.#writtenBytes;
    await this.#turns.run(async (signal) => {
      await writeFully(this.#file, { bytes: record, position, signal });
    });
    this.#writtenBytes += record.length;
  }

  async #sync(): Promise<void> {
    await this.#turns.run(() => this.#file.sync());
    this.#durableBytes = this.#writtenBytes;
    this.#counts.durablePages = this.#counts.writtenPages;
    while (this.#waiters[0] !== undefined && this.#waiters[0].atBytes <= this.#durableBytes) {
      this.#waiters.shift()?.done.resolve();
    }
  }

  async #complete(): Promise<PageFileMark> {
    assert(this.#durableBytes === this.#nextOffset, "everything before a complete-mark is durable");
    const { pages, dataPages } = this.#counts;
    const isWhole = pages === this.#seen.length;
    assert(this.#subject.scope === "missing" || isWhole, "a whole guest has every page");
    const mark: PageFileMark = {
      batches: this.#sequence,
      dataPages,
      zeroPages: pages - dataPages,
      contentBytes: this.#durableBytes,
      digest: this.#digest.digest("hex"),
    };
    const head: RecordHead = {
      kind: "complete",
      sequence: this.#sequence,
      syncedBytes: this.#durableBytes,
      entries: 0,
      dataBytes: 0,
    };
    const record = Buffer.alloc(recordBytes(head));
    encodeHead(head, record);
    const context = Buffer.concat([record.subarray(0, RECORD_HEAD_BYTES), this.#previousTag]);
    const place = { purpose: "record", offset: this.#durableBytes, context } as const;
    const body = encodeMarkBody(mark);
    assert(body.length + TAG_BYTES === sealedIndexBytes(head), "a mark's body has its length");
    this.#seal.seal(place, body, record, RECORD_HEAD_BYTES);
    await this.#append(record);
    await this.#sync();
    return mark;
  }

  /** The first reason counts. Whoever waits is told. */
  #end(error: PageFileError): void {
    this.#over ??= error;
    this.#room?.reject(this.#over);
    for (const { done } of this.#waiters.splice(0)) done.reject(this.#over);
  }
}

interface Write {
  readonly bytes: Buffer;
  readonly position: number;
  readonly signal: AbortSignal;
}

async function writeFully(file: AppendedFile, { bytes, position, signal }: Write): Promise<void> {
  for (let doneBytes = 0; doneBytes < bytes.length;) {
    // Late already: the file is given up.
    signal.throwIfAborted();
    const writtenBytes = await file.write(bytes.subarray(doneBytes), position + doneBytes);
    if (writtenBytes === 0) throw new Error("the file takes no more bytes");
    doneBytes += writtenBytes;
  }
}

/**
 * Reads a page file while it is written, and when it is complete. `refresh` opens it anew and takes
 * the records that have come; `read` gives a page of any of them, and checks it each time.
 *
 *   - What does not hold at the end of the file may be on its way: NFS writes in any order. It is
 *     damage when it does not hold for `settleMs`, or where the file itself says that it was synced.
 *   - Damage, truncation and another file under the name stop it for good: no further record is
 *     taken. Pages of the records before are still given, as long as each one holds by itself.
 *   - That the share does not answer stops nothing: the next call may be answered.
 */
import { assert, Deferred, systemClock, type Clock } from "@vmferry/core";
import { checkHeader, type CheckedHeader } from "./check-header.ts";
import { TAG_BYTES } from "./file-seal.ts";
import { FileTurns } from "./file-turns.ts";
import { pagesOf, type PageFileSubject } from "./header-codec.ts";
import {
  asPageFileError,
  pageFileClosed,
  pageFileDamaged,
  pageFileMissing,
  pageFileReplaced,
  pageFileTruncated,
  type PageFileError,
} from "./page-file-error.ts";
import { RECORD_HEAD_BYTES } from "./page-file-limits.ts";
import { readFully, type PageFiles, type ReadableFile } from "./page-files.ts";
import { RecordChain } from "./record-chain.ts";
import { decodeHead, recordBytes, sealedIndexBytes, type PageFileMark } from "./record-codec.ts";
import { SharedPageFiles } from "./shared-page-files.ts";
import { StoredPages, type BatchPages, type BatchRange } from "./stored-pages.ts";

const TIMEOUT_MS = 5000;
const POLL_MS = 250;
const SETTLE_MS = 10_000;
/** Why the next record is none yet, in good order. */
const UNFINISHED = "it is not whole";

export interface PageFileReaderOptions {
  /** Of both agents, 32 bytes at least. */
  readonly secret: Uint8Array;
  readonly files?: PageFiles;
  readonly clock?: Clock;
  /** Of each call, waiting for those before it included. */
  readonly timeoutMs?: number;
  /** Between two looks at the file when it is followed. */
  readonly pollMs?: number;
  /** How long what was written may take to be seen whole by another host. */
  readonly settleMs?: number;
  /** After a look that brought pages or the end. */
  readonly onChange?: () => void;
}

export interface PageFileState {
  /** `stopped`: no more will come, see `failure`. */
  readonly phase: "growing" | "complete" | "stopped";
  readonly batches: number;
  readonly dataPages: number;
  readonly zeroPages: number;
  /** The records that hold end here. */
  readonly acceptedBytes: number;
  readonly sizeBytes: number;
  /** What stopped it. */
  readonly failure: PageFileError | null;
  /** Why the last look at the file brought nothing; null where it did, or could have. */
  readonly trouble: PageFileError | null;
}

type Step = "more" | "waiting" | "complete";

export class PageFileReader {
  readonly #path: string;
  readonly #files: PageFiles;
  readonly #clock: Clock;
  readonly #pollMs: number;
  readonly #settleMs: number;
  readonly #onChange: () => void;
  readonly #turns: FileTurns;
  readonly #stored: StoredPages;
  readonly #chain: RecordChain;
  readonly #complete = new Deferred<PageFileMark>();
  #file: ReadableFile;
  /** Of the next record, where the read before brought it too. */
  #nextHead: Buffer | null = null;
  #grownAtMs: number;
  #doubtSinceMs: number | null = null;
  #failure: PageFileError | null = null;
  #trouble: PageFileError | null = null;
  #cancelPoll: (() => void) | null = null;
  #isFollowed = false;
  #isClosed = false;

  /**
   * Rejects where the file is not the expected one. One that is missing, truncated or damaged may
   * be about to be made: whoever waits for it tries again.
   */
  static async open(
    path: string,
    subject: PageFileSubject,
    options: PageFileReaderOptions,
  ): Promise<PageFileReader> {
    const { files = new SharedPageFiles(), timeoutMs = TIMEOUT_MS, secret, clock } = options;
    const turns = new FileTurns(path, { timeoutMs, ...(clock && { clock }) });
    const { file, header } = await turns.run(async (signal) => {
      const opened = await files.open(path);
      if (opened === null) throw pageFileMissing(path);
      try {
        const checked = await checkHeader(opened, { path, subject, secret });
        // Nobody waits for it any more.
        signal.throwIfAborted();
        return { file: opened, header: checked };
      } catch (error) {
        await opened.close().catch(() => undefined);
        throw error;
      }
    });
    return new PageFileReader(options, { path, subject, files, file, header, turns });
  }

  private constructor(
    options: PageFileReaderOptions,
    opened: {
      readonly path: string;
      readonly subject: PageFileSubject;
      readonly files: PageFiles;
      readonly file: ReadableFile;
      readonly header: CheckedHeader;
      readonly turns: FileTurns;
    },
  ) {
    this.#path = opened.path;
    this.#files = opened.files;
    this.#file = opened.file;
    this.#turns = opened.turns;
    this.#clock = options.clock ?? systemClock;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#settleMs = options.settleMs ?? SETTLE_MS;
    this.#onChange = options.onChange ?? (() => undefined);
    const { scope, blocks } = opened.subject;
    const pages = pagesOf(blocks);
    this.#chain = new RecordChain({ ...opened.header, scope, pages });
    this.#stored = new StoredPages(opened.path, opened.header.seal, pages);
    this.#grownAtMs = this.#clock.nowMs();
  }

  /** Resolves when every record is there and holds. Rejects with what stopped it. */
  get complete(): Promise<PageFileMark> {
    return this.#complete.promise;
  }

  get state(): PageFileState {
    const { mark, batchOffsets, dataPages, zeroPages, offset } = this.#chain;
    const reached = mark === null ? "growing" : "complete";
    return {
      phase: this.#failure === null ? reached : "stopped",
      batches: batchOffsets.length,
      dataPages,
      zeroPages,
      acceptedBytes: offset,
      sizeBytes: this.#file.sizeBytes,
      failure: this.#failure,
      trouble: this.#trouble,
    };
  }

  /** Looks at the file every `pollMs` until it is complete, stopped or closed. */
  follow(): void {
    if (this.#isFollowed) return;
    this.#isFollowed = true;
    void this.#poll();
  }

  /** Takes what has come. Rejects with what stopped it, now or earlier, or was in the way. */
  async refresh(): Promise<void> {
    if (this.#isClosed) throw pageFileClosed(this.#path);
    if (this.#failure !== null) throw this.#failure;
    const { offset } = this.#chain;
    try {
      await this.#turns.run(() => this.#reopen());
      // Each record has a turn of its own, so that a page is not waited for behind all of them.
      while ((await this.#turns.run(() => this.#step())) === "more") continue;
      this.#trouble = null;
    } catch (error) {
      this.#trouble = asPageFileError(this.#path, error);
      throw error;
    } finally {
      if (this.#chain.offset !== offset || this.state.phase === "stopped") this.#onChange();
    }
  }

  /**
   * Null where the page is not in the file as far as it was taken, or not yet as it was sealed.
   * Rejects with `page-file-damaged` where it never will be.
   */
  async read(page: number): Promise<Buffer | "zero" | null> {
    if (this.#isClosed) throw pageFileClosed(this.#path);
    const location = this.#chain.locations.find(page);
    if (location === null || location === "zero") return location;
    return await this.#again(
      () => this.#stored.read(this.#file, page, location),
      { offset: location.offset, end: location.offset + location.storedBytes + TAG_BYTES },
      `page ${page} is not as it was sealed`,
    );
  }

  /**
   * All pages of a batch by one read, 0 being the first of `state.batches`: for whoever wants every
   * page of the file. Null where the batch is not yet as it was sealed.
   */
  async readBatch(batch: number): Promise<BatchPages[] | null> {
    if (this.#isClosed) throw pageFileClosed(this.#path);
    const { batchOffsets, mark, offset: acceptedEnd } = this.#chain;
    const offset = batchOffsets[batch];
    assert(offset !== undefined, "a batch of the file");
    const end = batchOffsets[batch + 1] ?? mark?.contentBytes ?? acceptedEnd;
    const range = { offset, end };
    return await this.#again(
      () => this.#stored.readBatch(this.#file, range),
      range,
      "a batch is not as it was sealed",
    );
  }

  /**
   * Reads every page of the records that were taken; resolves to how many of those with data hold.
   * Rejects at one that never will.
   */
  async verify(): Promise<number> {
    let count = 0;
    for (let batch = 0; batch < this.#chain.batchOffsets.length; batch++) {
      for (const { page, content } of (await this.readBatch(batch)) ?? []) {
        if (content === "zero") continue;
        if (content !== null || (await this.read(page)) !== null) count++;
      }
    }
    return count;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelPoll?.();
    this.#complete.reject(pageFileClosed(this.#path));
    await this.#turns.end(() => this.#file.close());
  }

  async #poll(): Promise<void> {
    this.#cancelPoll = null;
    try {
      await this.refresh();
    } catch {
      // `state` and `complete` tell it.
    }
    if (this.#isClosed || this.#failure !== null || this.#chain.mark !== null) return;
    this.#cancelPoll = this.#clock.after(this.#pollMs, () => void this.#poll());
  }

  /** By the name: an open file may show what this host remembers of it. */
  async #reopen(): Promise<void> {
    const file = await this.#files.open(this.#path);
    if (file?.inode !== this.#file.inode) {
      await file?.close();
      throw this.#stop(pageFileReplaced(this.#path));
    }
    const old = this.#file;
    this.#file = file;
    this.#nextHead = null;
    await old.close().catch(() => undefined);
    const { sizeBytes } = file;
    if (sizeBytes < this.#chain.settledBytes) {
      throw this.#stop(pageFileTruncated(this.#path, sizeBytes));
    }
    // What was not synced may be gone for a while: the writer's host writes it again.
    if (sizeBytes < this.#chain.offset) this.#doubt(pageFileTruncated(this.#path, sizeBytes));
  }

  async #step(): Promise<Step> {
    const { offset, mark } = this.#chain;
    const { sizeBytes } = this.#file;
    if (mark !== null) {
      if (sizeBytes > offset) throw this.#stop(this.#damage("there is more behind its end"));
      this.#complete.resolve(mark);
      return "complete";
    }
    if (sizeBytes < offset) return "waiting";
    const obstacle =
      sizeBytes < offset + RECORD_HEAD_BYTES ? UNFINISHED : await this.#takeRecord(offset);
    if (obstacle === UNFINISHED) {
      this.#doubtSinceMs = null;
      return "waiting";
    }
    if (obstacle !== null) {
      this.#doubt(this.#damage(obstacle));
      return "waiting";
    }
    this.#doubtSinceMs = null;
    this.#grownAtMs = this.#clock.nowMs();
    return "more";
  }

  /** Null where it was taken; otherwise why it is none. */
  async #takeRecord(offset: number): Promise<string | null> {
    const headBytes = this.#nextHead ?? Buffer.alloc(RECORD_HEAD_BYTES);
    if (this.#nextHead === null) await readFully(this.#file, headBytes, offset);
    const head = decodeHead(headBytes);
    if (head === null) return "it goes on with what is no record";
    const end = offset + recordBytes(head);
    if (this.#file.sizeBytes < end) return UNFINISHED;
    const indexBytes = sealedIndexBytes(head);
    // With the next head, which spares a read for each record.
    const buffer = Buffer.alloc(indexBytes + RECORD_HEAD_BYTES);
    const readBytes = await readFully(this.#file, buffer, end - indexBytes);
    if (readBytes < indexBytes) return "it is shorter than it was";
    const obstacle = this.#chain.accept(head, headBytes, buffer.subarray(0, indexBytes));
    this.#nextHead = readBytes === buffer.length ? buffer.subarray(indexBytes) : null;
    return obstacle;
  }

  /** Reads, and once more where that gives nothing: this host may remember what was there before. */
  async #again<T>(
    read: () => Promise<T | null>,
    range: BatchRange,
    reason: string,
  ): Promise<T | null> {
    return await this.#turns.run(async () => {
      const first = await read();
      if (first !== null) return first;
      await this.#reopen();
      const second = await read();
      if (second !== null || !this.#isSettled(range.end)) return second;
      throw pageFileDamaged(this.#path, range.offset, reason);
    });
  }

  #isSettled(end: number): boolean {
    if (end <= this.#chain.settledBytes) return true;
    return this.#clock.nowMs() - this.#grownAtMs >= this.#settleMs;
  }

  #damage(reason: string): PageFileError {
    return pageFileDamaged(this.#path, this.#chain.offset, reason);
  }

  /** Perhaps it is only not there yet. */
  #doubt(error: PageFileError): void {
    this.#doubtSinceMs ??= this.#clock.nowMs();
    if (this.#clock.nowMs() - this.#doubtSinceMs >= this.#settleMs) throw this.#stop(error);
  }

  #stop(error: PageFileError): PageFileError {
    this.#failure ??= error;
    this.#complete.reject(this.#failure);
    return this.#failure;
  }
}

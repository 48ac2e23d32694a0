/**
 * Missing pages from the page file that the source writes: what vCPUs wait for first, otherwise batch
 * after batch as they come. It waits for a file that is not there yet, and for what is to be written.
 *
 *   open ─▶ look ─▶ asked pages │ next batch │ wait ─▶ …          replaced ─▶ open
 *                                                                 damaged, and all before it taken ─▶ end
 *
 * The share may hang: one attempt to open is under way at a time, and everything has a limit.
 */
import {
  PageFileError,
  PageFileReader,
  SharedPageFiles,
  type AppendedFile,
  type BatchPages,
  type Logger,
  type PageFilePlace,
  type PageFiles,
  type ReadableFile,
} from "@vmferry/agent";
import { Deferred, systemClock, type Clock } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import type { FoundPages, PagesFromFile, WantedPages } from "./pages-from-file.ts";

const { PAGE_BYTES } = limits;
/** For a file that is not there, or a share that is no help: what is asked for does not shorten it. */
const AGAIN_MS = 500;
const POLL_MS = 250;
/** So long may a file that is no good be about to be made. */
const UNMADE_MS_MAX = 10_000;

export interface FilePagesOptions {
  readonly place: PageFilePlace;
  readonly logger: Logger;
  /** Once for each code. */
  readonly onTrouble: (error: PageFileError) => void;
  /** All of it is there, as far as it was looked at. */
  readonly onComplete?: () => void;
  readonly clock?: Clock;
  readonly files?: PageFiles;
  /** Of each call of the share. */
  readonly timeoutMs?: number;
  /** How long what was written may take to be seen whole. */
  readonly settleMs?: number;
}

export class FilePages implements PagesFromFile {
  readonly #options: FilePagesOptions;
  readonly #clock: Clock;
  readonly #files: OneAtATime;
  /** As pages are counted in the file. */
  readonly #firstPageOf: readonly number[];
  readonly #told = new Set<string>();
  #reader: PageFileReader | null = null;
  #isCompleteTold = false;
  /** Of the file. */
  #nextBatch = 0;
  /** Since when there is a file that cannot be opened. */
  #unmadeSinceMs: number | null = null;
  #wake = new Deferred();
  readonly #closed = new Deferred();
  #isClosed = false;

  constructor(options: FilePagesOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#files = new OneAtATime(options.files ?? new SharedPageFiles());
    const firsts: number[] = [];
    let pages = 0;
    for (const { lengthBytes } of options.place.subject.blocks) {
      firsts.push(pages);
      pages += lengthBytes / PAGE_BYTES;
    }
    this.#firstPageOf = firsts;
  }

  /** All of the file is known, and holds as far as it was looked at. */
  get isComplete(): boolean {
    return this.#reader?.state.phase === "complete";
  }

  async next(wanted: WantedPages): Promise<readonly FoundPages[] | null> {
    while (!this.#isClosed) {
      try {
        const found = await this.#look(wanted);
        if (found === null || found.length > 0) return found;
      } catch (error) {
        if (!(error instanceof PageFileError)) throw error;
        if (this.#isOver()) break;
        this.#tell(error);
        await this.#pause();
      }
    }
    return null;
  }

  asked(): void {
    this.#wake.resolve();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#wake.resolve();
    this.#closed.resolve();
    void this.#reader?.close();
  }

  /** What there is now; nothing after a wait; null when nothing will come any more. */
  async #look(wanted: WantedPages): Promise<FoundPages[] | null> {
    const reader = (this.#reader ??= await this.#open());
    if (reader === null) return await this.#pause();
    const asked = await this.#asked(reader, wanted);
    if (asked.length > 0) return asked;
    const { phase, batches, failure } = reader.state;
    if (phase === "complete" && !this.#isCompleteTold) {
      this.#isCompleteTold = true;
      this.#options.logger.info("memory that is missing is on the share, all of it");
      if (!this.#isClosed) this.#options.onComplete?.();
    }
    if (this.#nextBatch < batches) return await this.#batch(reader, wanted);
    if (phase === "complete") return null;
    if (phase === "growing") return await this.#wait(POLL_MS);
    // Another life of the source has made a new one.
    const isReplaced = failure?.code === "page-file-replaced";
    if (failure !== null && !isReplaced) this.#tell(failure);
    if (!isReplaced) return null;
    this.#reader = null;
    this.#nextBatch = 0;
    void reader.close();
    return await this.#pause();
  }

  /** Null where there is none yet, or an earlier attempt to open still hangs. */
  async #open(): Promise<PageFileReader | null> {
    if (this.#files.isBusy) return null;
    const { place, timeoutMs, settleMs, clock } = this.#options;
    const { path, subject, secret } = place;
    try {
      const reader = await PageFileReader.open(path, subject, {
        ...{ secret, files: this.#files, pollMs: POLL_MS },
        ...(clock && { clock }),
        ...(timeoutMs !== undefined && { timeoutMs }),
        ...(settleMs !== undefined && { settleMs }),
        onChange: () => {
          this.#wake.resolve();
        },
      });
      // What stops it is in its state.
      reader.complete.catch(() => undefined);
      if (this.#isClosed) void reader.close();
      else reader.follow();
      this.#unmadeSinceMs = null;
      return this.#isClosed ? null : reader;
    } catch (error) {
      const { code } = error as PageFileError;
      if (code === "page-file-missing") return null;
      if (code !== "page-file-damaged" && code !== "page-file-truncated") throw error;
      this.#unmadeSinceMs ??= this.#clock.nowMs();
      if (this.#clock.nowMs() - this.#unmadeSinceMs > UNMADE_MS_MAX) throw error;
      return null;
    }
  }

  async #asked(reader: PageFileReader, wanted: WantedPages): Promise<FoundPages[]> {
    const found: FoundPages[] = [];
    for (const { block, firstPage, pages } of wanted.asked()) {
      for (let page = firstPage; page < firstPage + pages; page++) {
        const content = await this.#read(reader, this.#firstPageOf[block]! + page);
        const isFound = content !== null && content !== "damaged";
        if (isFound) found.push({ block, first: page, count: 1, content });
      }
    }
    return found;
  }

  /** Those of the next batch that are missing. One that does not hold yet is looked at again. */
  async #batch(reader: PageFileReader, wanted: WantedPages): Promise<FoundPages[]> {
    const entries = await this.#entries(reader);
    if (entries === null) return await this.#wait(POLL_MS);
    const found: FoundPages[] = [];
    let isLate = false;
    for (const { page, count, content } of entries) {
      for (const run of this.#runsOf(page, count)) {
        if (!isWanted(wanted, run)) continue;
        const now = content ?? (await this.#read(reader, page));
        if (now === null) isLate = true;
        else if (now !== "damaged") found.push({ ...run, content: now });
      }
    }
    if (!isLate) this.#nextBatch++;
    else if (found.length === 0) await this.#wait(POLL_MS);
    return found;
  }

  async #entries(reader: PageFileReader): Promise<readonly BatchPages[] | null> {
    try {
      return await reader.readBatch(this.#nextBatch);
    } catch (error) {
      this.#givesUp(reader, error);
      return [];
    }
  }

  /** Null where it is not there yet. */
  async #read(reader: PageFileReader, page: number): Promise<Buffer | "zero" | "damaged" | null> {
    try {
      return await reader.read(page);
    } catch (error) {
      this.#givesUp(reader, error);
      return "damaged";
    }
  }

  /** What cannot be read will never be. Throws `error` where that is not so. */
  #givesUp(reader: PageFileReader, error: unknown): void {
    if (!(error instanceof PageFileError)) throw error;
    if (error.code === "page-file-damaged") this.#tell(error);
    // Why is told when nothing is left of what was taken of it.
    else if (reader.state.phase !== "stopped") throw error;
  }

  /** Of pages as they are counted in the file. */
  *#runsOf(page: number, count: number): Generator<Omit<FoundPages, "content">> {
    const end = page + count;
    for (let at = page; at < end;) {
      const block = this.#firstPageOf.findLastIndex((first) => first <= at);
      const blockEnd = this.#firstPageOf[block + 1] ?? end;
      const runEnd = Math.min(end, blockEnd);
      yield { block, first: at - this.#firstPageOf[block]!, count: runEnd - at };
      at = runEnd;
    }
  }

  #tell(error: PageFileError): void {
    if (this.#isOver() || this.#told.has(error.code)) return;
    this.#told.add(error.code);
    this.#options.onTrouble(error);
  }

  async #pause(): Promise<[]> {
    const over = new Deferred();
    const cancel = this.#clock.after(AGAIN_MS, () => {
      over.resolve();
    });
    await Promise.race([over.promise, this.#closed.promise]);
    cancel();
    return [];
  }

  /** Or until there is something to look at. */
  async #wait(ms: number): Promise<[]> {
    const cancel = this.#clock.after(ms, () => {
      this.#wake.resolve();
    });
    await this.#wake.promise;
    cancel();
    if (!this.#isClosed) this.#wake = new Deferred();
    return [];
  }

  #isOver(): boolean {
    return this.#isClosed;
  }
}

function isWanted(
  wanted: WantedPages,
  { block, first, count }: Omit<FoundPages, "content">,
): boolean {
  for (let page = first; page < first + count; page++) {
    if (wanted.isMissing(block, page)) return true;
  }
  return false;
}

/** A share of which no second file is opened while opening one hangs: each would hold a thread. */
class OneAtATime implements PageFiles {
  isBusy = false;
  readonly #files: PageFiles;

  constructor(files: PageFiles) {
    this.#files = files;
  }

  async open(path: string): Promise<ReadableFile | null> {
    this.isBusy = true;
    try {
      return await this.#files.open(path);
    } finally {
      this.isBusy = false;
    }
  }

  create(path: string): Promise<AppendedFile> {
    return this.#files.create(path);
  }

  remove(path: string): Promise<void> {
    return this.#files.remove(path);
  }

  list(directory: string, countMax: number): Promise<string[]> {
    return this.#files.list(directory, countMax);
  }
}

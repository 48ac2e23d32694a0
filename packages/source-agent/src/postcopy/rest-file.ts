/**
 * Writes all that a store has into a page file on the share, beside the page lanes, which begin at the
 * other end: descending in pieces, ascending in each of them.
 *
 * Nothing of it is a condition of anything: what goes wrong is told once, and the lanes go on. The
 * share may hang at any call, so nobody waits for one at the end.
 */
import { setImmediate } from "node:timers/promises";
import {
  PageFileError,
  PageFileReader,
  PageFileWriter,
  removePageFile,
  type Logger,
  type PageFilePlace,
  type PageFiles,
} from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import type { SentPageHashes } from "./stored-frame.ts";
import type { StoredPages } from "./stored-pages.ts";

const { PAGE_BYTES } = limits;
/** As many as are sealed before somebody else gets a turn: 0.4 ms. */
const READ_PAGES = 64;
/** A batch of a file, and a piece of memory that is written in ascending order. */
const PIECE_PAGES = 256;
const PIECES_A_TURN = 8;

/** `page-file-…`, with words for people. */
export type OnRestFileTrouble = (error: PageFileError) => void;

export interface RestFileOptions {
  readonly place: PageFilePlace;
  /** Does not change any more. */
  readonly store: StoredPages;
  /** Of what is written, too: the dest does not say any more that it lacks it. */
  readonly hashes: SentPageHashes | null;
  readonly logger: Logger;
  readonly onTrouble: OnRestFileTrouble;
  /** Of the share. */
  readonly files?: PageFiles;
  /** Of each of its calls. */
  readonly timeoutMs?: number;
}

export type RestFilePhase = "writing" | "complete" | "failed" | "stopped";

export class RestFile {
  readonly #options: RestFileOptions;
  readonly #firstPageOf: readonly number[];
  #phase: RestFilePhase = "writing";
  #writer: PageFileWriter | null = null;
  /** Of the store. */
  #reading: Promise<void> = Promise.resolve();
  /** Resolves when it is complete or given up. Never rejects. */
  readonly ended: Promise<void>;

  /** Begins at once. */
  constructor(options: RestFileOptions) {
    this.#options = options;
    const firsts: number[] = [];
    let pages = 0;
    for (const blockPages of options.store.pages.blockPages) {
      firsts.push(pages);
      pages += blockPages;
    }
    this.#firstPageOf = firsts;
    this.ended = this.#run();
  }

  get phase(): RestFilePhase {
    return this.#phase;
  }

  /** Writes no more. Resolves when the store is not read any more; the share is not waited for. */
  async stop(): Promise<void> {
    if (this.#phase === "writing") this.#phase = "stopped";
    void this.#writer?.close({ complete: false }).catch(() => undefined);
    await this.#reading;
  }

  async #run(): Promise<void> {
    const { place, logger, onTrouble } = this.#options;
    try {
      if (await this.#isThere()) {
        this.#end("complete");
        return;
      }
      if (this.#isOver()) return;
      await this.#write();
    } catch (error) {
      if (this.#isOver()) return;
      this.#end("failed");
      if (error instanceof PageFileError) onTrouble(error);
      else logger.error({ err: error }, "the store of memory cannot be written to the share");
      await this.#writer?.close({ complete: false }).catch(() => undefined);
      return;
    }
    if (this.#phase === "complete") {
      logger.info({ path: place.path }, "memory that follows is on the share, all of it");
    }
  }

  /** An earlier life of the agent has left a whole one. What else it left is removed. */
  async #isThere(): Promise<boolean> {
    const { place, files, timeoutMs } = this.#options;
    const { path, subject, secret } = place;
    const options = { ...(files && { files }), ...(timeoutMs !== undefined && { timeoutMs }) };
    try {
      const reader = await PageFileReader.open(path, subject, { ...options, secret });
      try {
        await reader.refresh();
        if (reader.state.phase === "complete") return true;
      } finally {
        await reader.close();
      }
    } catch (error) {
      const { code } = error as PageFileError;
      if (code === "page-file-missing") return false;
      if (code === "page-file-unreachable" || code === "page-file-failed") throw error;
    }
    if (!this.#isOver()) await removePageFile(path, options);
    return false;
  }

  async #write(): Promise<void> {
    const { place, files, timeoutMs } = this.#options;
    const { path, subject, secret } = place;
    const options = { ...(files && { files }), ...(timeoutMs !== undefined && { timeoutMs }) };
    const writer = await PageFileWriter.create(path, subject, { ...options, secret });
    this.#writer = writer;
    if (this.#isOver()) {
      await writer.close({ complete: false });
      // Nobody may come any more to remove what holds nothing.
      await removePageFile(path, options);
      return;
    }
    const { blockPages } = this.#options.store.pages;
    let pieces = 0;
    for (let block = blockPages.length - 1; block >= 0; block--) {
      const last = Math.floor((blockPages[block]! - 1) / PIECE_PAGES) * PIECE_PAGES;
      for (let first = last; first >= 0; first -= PIECE_PAGES) {
        await this.#writePiece(writer, block, first);
        if (this.#isOver()) return;
        // Where nothing is stored, or zeros alone, nothing else gives others a turn.
        if (++pieces % PIECES_A_TURN === 0) await setImmediate();
      }
    }
    await writer.close({ complete: true });
    this.#end("complete");
  }

  async #writePiece(writer: PageFileWriter, block: number, start: number): Promise<void> {
    const { pages } = this.#options.store;
    const end = Math.min(start + PIECE_PAGES, pages.blockPages[block]!);
    for (let first = start; first < end && !this.#isOver(); first++) {
      let count = 0;
      while (first + count < end && count < READ_PAGES && pages.has(block, first + count)) count++;
      if (count > 0) await this.#writeRun(writer, block, { first, count });
      first += Math.max(0, count - 1);
    }
  }

  /** Stored pages, those of zeros among them, which need no reading. */
  async #writeRun(
    writer: PageFileWriter,
    block: number,
    { first, count }: { readonly first: number; readonly count: number },
  ): Promise<void> {
    const { store, hashes } = this.#options;
    const end = first + count;
    for (let page = first; page < end && !this.#isOver();) {
      const isZero = store.isZero(block, page);
      const from = page;
      while (page < end && store.isZero(block, page) === isZero) page++;
      if (!isZero) {
        await this.#writeData(writer, block, { first: from, count: page - from });
        continue;
      }
      for (let zero = from; zero < page; zero++) hashes?.zeroPage(block, zero);
      await writer.addZeros(this.#firstPageOf[block]! + from, page - from);
    }
  }

  async #writeData(
    writer: PageFileWriter,
    block: number,
    { first, count }: { readonly first: number; readonly count: number },
  ): Promise<void> {
    const { store, hashes } = this.#options;
    const data = Buffer.allocUnsafe(count * PAGE_BYTES);
    const reading = store.read(block, first, count, data);
    this.#reading = reading.catch(() => undefined);
    await reading;
    for (let index = 0; index < count; index++) {
      const content = data.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
      hashes?.page(block, first + index, content);
      await writer.room();
      writer.add(this.#firstPageOf[block]! + first + index, content);
    }
  }

  #isOver(): boolean {
    return this.#phase !== "writing";
  }

  #end(phase: RestFilePhase): void {
    if (this.#phase === "writing") this.#phase = phase;
  }
}

/** Nobody can ask for what is in it any more. Not waited for: the share may hang. */
export function discardRestFile(path: string, logger: Logger): void {
  removePageFile(path).catch((error: unknown) => {
    logger.warn({ path, reason: messageOf(error) }, "a page file stays on the share");
  });
}

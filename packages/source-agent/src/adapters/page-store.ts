/**
 * Pages of a guest that the dest lacks: a sparse file with a place for every page of every block, in
 * the order of the blocks, and beside it an index that tells which of them are there.
 *
 * While QEMU drains into it pages are written in runs, one write after another, so that of a page
 * which comes again the later content stays. The agent's own memory does not grow: what the kernel
 * keeps of the file is cache. Nothing is synced, for an agent that dies leaves its writes to the
 * kernel, and a host that dies takes the guest's QEMU with it as well.
 */
import { close, ftruncate, open, read, write } from "node:fs";
import { rename, rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { assert, Deferred } from "@vmferry/core";
import { encodeStoreIndex, PageSet } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import type { RamBlock } from "@vmferry/qemu";
import type { StoredPages } from "../postcopy/stored-pages.ts";
import { keyPathOf } from "./kept-file-key.ts";

const { PAGE_BYTES } = limits;
const RUN_PAGES = 64;
const RUN_BYTES = RUN_PAGES * PAGE_BYTES;
/** Beyond it the store has no room until writes are done. */
const QUEUED_RUNS_MAX = 32;

const openFile = promisify(open);
const closeFile = promisify(close);
const truncate = promisify(ftruncate);
const readAt = promisify(read);
const writeAt = promisify(write);

export interface PageStoreOptions {
  /** Of the file of pages; the index has `.index` behind it. */
  readonly path: string;
  readonly blocks: readonly RamBlock[];
  /** There is room again. */
  readonly onRoom: () => void;
  /** A page could not be written: nothing that is in the store counts any more. */
  readonly onFailed: (error: unknown) => void;
}

interface QueuedRun {
  readonly buffer: Buffer;
  readonly firstIndex: number;
  pages: number;
}

export class PageStore implements StoredPages {
  readonly pages: PageSet;
  readonly #zeros: PageSet;
  readonly #options: PageStoreOptions;
  readonly #firstIndexOf: readonly number[];
  readonly #fd: number;
  readonly #free: Buffer[] = [];
  readonly #queue: QueuedRun[] = [];
  /** The run that pages are added to; not in the queue yet. */
  #run: QueuedRun | null = null;
  #writing: Promise<void> | null = null;
  #written = new Deferred();
  #failure: { readonly cause: unknown } | null = null;
  #storedBytes = 0;

  private constructor(fd: number, options: PageStoreOptions, found: StoreContent | null) {
    this.#fd = fd;
    this.#options = options;
    this.pages = found?.pages ?? new PageSet(options.blocks);
    this.#zeros = found?.zeros ?? new PageSet(options.blocks);
    const firsts: number[] = [];
    let index = 0;
    for (const { lengthBytes } of options.blocks) {
      firsts.push(index);
      index += lengthBytes / PAGE_BYTES;
    }
    this.#firstIndexOf = firsts;
  }

  /** Makes a new one; rejects where there is a file already. */
  static async create(options: PageStoreOptions): Promise<PageStore> {
    const fd = await openFile(options.path, "wx+", 0o600);
    const bytes = options.blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    await truncate(fd, bytes);
    return new PageStore(fd, options, null);
  }

  /** One that an earlier life of the agent has filled; `found` is what its index says. */
  static async reopen(options: PageStoreOptions, found: StoreContent): Promise<PageStore> {
    return new PageStore(await openFile(options.path, "r"), options, found);
  }

  /** Of pages that were put, those that came again included. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  get hasRoom(): boolean {
    return this.#queue.length < QUEUED_RUNS_MAX;
  }

  /** The page at source[offset] is what the dest lacks; it replaces what was put before. */
  put(block: number, page: number, source: Buffer, offset: number): void {
    const index = this.#firstIndexOf[block]! + page;
    const run = this.#runFor(index);
    source.copy(run.buffer, run.pages * PAGE_BYTES, offset, offset + PAGE_BYTES);
    run.pages++;
    this.#storedBytes += PAGE_BYTES;
    this.pages.add(block, page);
    this.#zeros.remove(block, page);
    if (run.pages === RUN_PAGES) this.#sealRun();
  }

  putZero(block: number, page: number): void {
    this.pages.add(block, page);
    this.#zeros.add(block, page);
  }

  /** The dest does not lack it any more. */
  drop(block: number, page: number): void {
    this.pages.remove(block, page);
  }

  isZero(block: number, page: number): boolean {
    return this.#zeros.has(block, page);
  }

  /** Resolves when everything that was put can be read. */
  async settled(): Promise<void> {
    this.#sealRun();
    while (this.#writing !== null) await this.#written.promise;
    if (this.#failure !== null) throw this.#failure.cause;
  }

  async read(block: number, firstPage: number, pages: number, into: Buffer): Promise<void> {
    // What the dest asks for as soon as it may can still be on its way into the file.
    if (this.#run !== null || this.#writing !== null) await this.settled();
    const bytes = pages * PAGE_BYTES;
    assert(bytes <= into.length, "pages fit the buffer that they are read to");
    const at = (this.#firstIndexOf[block]! + firstPage) * PAGE_BYTES;
    let done = 0;
    while (done < bytes) {
      const { bytesRead } = await readAt(this.#fd, into, done, bytes - done, at + done);
      if (bytesRead === 0) throw new Error(`the store of pages ends at byte ${at + done}`);
      done += bytesRead;
    }
    // Of a page that became zero later the file may hold what it was before.
    for (let page = 0; page < pages; page++) {
      if (this.isZero(block, firstPage + page)) {
        into.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      }
    }
  }

  /** From then on an agent that starts anew finds what is in the store. */
  async saveIndex(about: { readonly migrationId: string; readonly epoch: number }): Promise<void> {
    const path = indexPathOf(this.#options.path);
    const { blocks } = this.#options;
    const bytes = encodeStoreIndex({ ...about, blocks, pages: this.pages, zeros: this.#zeros });
    await writeFile(`${path}.new`, bytes, { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  /** The file stays. */
  async close(): Promise<void> {
    while (this.#writing !== null) await this.#written.promise;
    await closeFile(this.#fd);
  }

  #runFor(index: number): QueuedRun {
    const run = this.#run;
    if (run !== null && run.firstIndex + run.pages === index) return run;
    this.#sealRun();
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(RUN_BYTES);
    return (this.#run = { buffer, firstIndex: index, pages: 0 });
  }

  #sealRun(): void {
    if (this.#run === null) return;
    this.#queue.push(this.#run);
    this.#run = null;
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    try {
      for (let run = this.#queue[0]; run !== undefined; run = this.#queue[0]) {
        await this.#writeRun(run);
        const wasFull = !this.hasRoom;
        this.#queue.shift();
        this.#free.push(run.buffer);
        if (wasFull) this.#options.onRoom();
      }
    } catch (cause) {
      this.#failure = { cause };
      this.#queue.length = 0;
      this.#options.onFailed(cause);
    }
    this.#writing = null;
    this.#written.resolve();
    this.#written = new Deferred();
  }

  async #writeRun({ buffer, firstIndex, pages }: QueuedRun): Promise<void> {
    const bytes = pages * PAGE_BYTES;
    let done = 0;
    while (done < bytes) {
      const at = firstIndex * PAGE_BYTES + done;
      const { bytesWritten } = await writeAt(this.#fd, buffer, done, bytes - done, at);
      done += bytesWritten;
    }
  }
}

/** What an index says is in a store. */
export interface StoreContent {
  readonly pages: PageSet;
  readonly zeros: PageSet;
}

export function indexPathOf(path: string): string {
  return `${path}.index`;
}

/** Nothing of a store stays. */
export async function removePageStore(path: string): Promise<void> {
  const index = indexPathOf(path);
  const files = [path, index, `${index}.new`, keyPathOf(path)];
  await Promise.all(files.map((each) => rm(each, { force: true })));
}

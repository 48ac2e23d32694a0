/**
 * Pages of a guest that the dest lacks: a sparse file with a place for every page of every block, in
 * the order of the blocks, and beside it an index that tells which of them are there.
 *
 * While QEMU drains into it pages are collected in batches, each of pages from anywhere, which a
 * thread of its own (page-writer.ts) writes one after another: so of a page that comes again the
 * later content stays, a page that has no neighbours costs no more than another, and a disk that
 * keeps a write waiting keeps nobody else. The agent's own memory does not grow: what the kernel
 * keeps of the file is cache. Nothing is synced, for an agent that dies leaves its writes to the
 * kernel, and a host that dies takes the guest's QEMU with it as well.
 */
import { close, ftruncate, open, read } from "node:fs";
import { rename, rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { openCachedRead, type CachedRead } from "@vmferry/block";
import { assert, Deferred } from "@vmferry/core";
import { encodeStoreIndex, PageSet } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import type { RamBlock } from "@vmferry/qemu";
import type { StoredPages } from "../postcopy/stored-pages.ts";
import { keyPathOf } from "./kept-file-key.ts";
import { PageBatch } from "./page-batch.ts";
import type { WriterData, Written } from "./page-writer.ts";

const { PAGE_BYTES } = limits;
/** Beyond it the store has no room until writes are done. */
const QUEUED_BATCHES_MAX = 32;

const openFile = promisify(open);
const closeFile = promisify(close);
const truncate = promisify(ftruncate);
const readAt = promisify(read);

export interface PageStoreOptions {
  /** Of the file of pages; the index has `.index` behind it. */
  readonly path: string;
  readonly blocks: readonly RamBlock[];
  /** There is room again. */
  readonly onRoom: () => void;
  /** A page could not be written: nothing that is in the store counts any more. */
  readonly onFailed: (error: unknown) => void;
}

interface OpenStore {
  readonly fd: number;
  readonly readCached: CachedRead;
}

export class PageStore implements StoredPages {
  readonly pages: PageSet;
  readonly #zeros: PageSet;
  readonly #options: PageStoreOptions;
  readonly #firstIndexOf: readonly number[];
  readonly #fd: number;
  /** What was written a moment ago is in the kernel's cache. */
  readonly #readCached: CachedRead;
  /** Null for a store that is only read. */
  readonly #writer: Worker | null;
  readonly #free: PageBatch[] = [];
  /** With the writer, oldest first. */
  readonly #queue: PageBatch[] = [];
  /** The one that pages are added to; not with the writer yet. */
  #batch: PageBatch | null = null;
  /** Of a batch, or never. */
  #written = new Deferred();
  #writtenBatches = 0;
  #failure: { readonly cause: unknown } | null = null;
  #storedBytes = 0;

  private constructor(
    { fd, readCached }: OpenStore,
    options: PageStoreOptions,
    found: StoreContent | null,
  ) {
    this.#fd = fd;
    this.#readCached = readCached;
    this.#writer = found === null ? this.#startWriter() : null;
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
    const readCached = await openCachedRead();
    const fd = await openFile(options.path, "wx+", 0o600);
    const bytes = options.blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    await truncate(fd, bytes);
    return new PageStore({ fd, readCached }, options, null);
  }

  /** One that an earlier life of the agent has filled; `found` is what its index says. */
  static async reopen(options: PageStoreOptions, found: StoreContent): Promise<PageStore> {
    const readCached = await openCachedRead();
    return new PageStore({ fd: await openFile(options.path, "r"), readCached }, options, found);
  }

  /** Of pages that were put, those that came again included. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  get hasRoom(): boolean {
    return this.#queue.length < QUEUED_BATCHES_MAX;
  }

  /** The page at source[offset] is what the dest lacks; it replaces what was put before. */
  put(block: number, page: number, source: Buffer, offset: number): void {
    const batch = (this.#batch ??= this.#free.pop() ?? new PageBatch());
    batch.add(this.#firstIndexOf[block]! + page, source, offset);
    this.#storedBytes += PAGE_BYTES;
    this.pages.add(block, page);
    this.#zeros.remove(block, page);
    if (batch.isFull) this.#sealBatch();
  }

  putZero(block: number, page: number): void {
    this.pages.add(block, page);
    this.#zeros.add(block, page);
  }

  isZero(block: number, page: number): boolean {
    return this.#zeros.has(block, page);
  }

  /** Resolves when everything that was put can be read. */
  async settled(): Promise<void> {
    this.#sealBatch();
    while (this.#queue.length > 0) await this.#written.promise;
    if (this.#failure !== null) throw this.#failure.cause;
  }

  /** Resolves when what was put until now was written; later puts may go on meanwhile. */
  async written(): Promise<void> {
    this.#sealBatch();
    const last = this.#writtenBatches + this.#queue.length;
    while (this.#writtenBatches < last && this.#failure === null) await this.#written.promise;
    if (this.#failure !== null) throw this.#failure.cause;
  }

  /** A page that was written before, from the kernel's cache; false where that does not have it. */
  readWritten(block: number, page: number, into: Buffer): boolean {
    const at = (this.#firstIndexOf[block]! + page) * PAGE_BYTES;
    return this.#readCached(this.#fd, into, at) === PAGE_BYTES;
  }

  async read(block: number, firstPage: number, pages: number, into: Buffer): Promise<void> {
    // What the dest asks for as soon as it may can still be on its way into the file.
    if (this.#batch !== null || this.#queue.length > 0) await this.settled();
    const bytes = pages * PAGE_BYTES;
    assert(bytes <= into.length, "pages fit the buffer that they are read to");
    const at = (this.#firstIndexOf[block]! + firstPage) * PAGE_BYTES;
    let done = this.#readCached(this.#fd, into.subarray(0, bytes), at);
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
    while (this.#queue.length > 0) await this.#written.promise;
    await this.#writer?.terminate();
    await closeFile(this.#fd);
  }

  #sealBatch(): void {
    const batch = this.#batch;
    if (batch === null) return;
    this.#batch = null;
    if (this.#failure !== null) return;
    this.#queue.push(batch);
    this.#writer!.postMessage(batch.memory);
  }

  #startWriter(): Worker {
    const workerData: WriterData = { fd: this.#fd };
    const writer = new Worker(new URL("page-writer.ts", import.meta.url), { workerData });
    writer.on("message", (written: Written) => {
      this.#wrote(written);
    });
    writer.on("error", (cause) => {
      this.#fail(cause);
    });
    return writer;
  }

  #wrote({ failure }: Written): void {
    if (this.#failure !== null) return;
    if (failure !== null) {
      this.#fail(failure);
      return;
    }
    const wasFull = !this.hasRoom;
    this.#free.push(this.#queue.shift()!.empty());
    this.#writtenBatches++;
    if (wasFull) this.#options.onRoom();
    this.#tellWritten();
  }

  #fail(cause: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = { cause };
    this.#queue.length = 0;
    this.#options.onFailed(cause);
    this.#tellWritten();
  }

  #tellWritten(): void {
    this.#written.resolve();
    this.#written = new Deferred();
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

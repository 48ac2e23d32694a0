/**
 * The part of a guest's memory that follows it: stored here while the guest is still ours, served to
 * the dest once it runs there, and removed when nobody can ask for it any more.
 */
import { mkdir, readdir, readFile, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  decodeStoreIndex,
  type StoreIndex,
  pageFilePath,
  pageFilePlace,
  ProblemError,
  type PageFileKey,
  type PageFilePlace,
} from "@vmferry/agent";
import { assert, messageOf } from "@vmferry/core";
import { limits, type MigrationFallback, type SourceOwnership } from "@vmferry/protocol";
import { DeviceStateTail, type RamBlock } from "@vmferry/qemu";
import { keepFileKey, readFileKey } from "../adapters/kept-file-key.ts";
import { mayExist } from "../adapters/may-exist.ts";
import { indexPathOf, PageStore, removePageStore } from "../adapters/page-store.ts";
import type { PageDialer } from "../adapters/peer-dialer.ts";
import type { DrainStart } from "../ram/drain.ts";
import type { RamTransfer } from "../ram/ram-transfer.ts";
import { PageService, type PageServiceOptions, type SentPageHashes } from "./page-service.ts";
import type { PagePlace } from "./push.ts";
import { discardRestFile, RestFile, type OnRestFileTrouble } from "./rest-file.ts";

const SUFFIX = ".pages";
/** A guest that has just begun to run asks for one page after another, and waits for each. */
const FIRST_STEPS_MS = 100;
/** What 1 Gbit/s carries in some 17 ms: nearly all of it is there before the guest runs, and in the way of nothing it asks for. */
const HOT_PAGES_MAX = 512;
/** As long as a journal is kept. */
const KEPT_MS_MAX = 30 * 86_400_000;

export interface MemoryRestOptions extends Pick<
  PageServiceOptions,
  | "clock"
  | "random"
  | "logger"
  | "about"
  | "compression"
  | "bandwidthBytesPerSecond"
  | "linkBytesPerSecond"
> {
  /** Where stores are kept. */
  readonly memoryDir: string;
  /** That both hosts mount; null where there is none. */
  readonly sharedDir: string | null;
  readonly dialPages: PageDialer;
  readonly onFailed: (error: unknown) => void;
  /** What follows comes by the page lanes alone. */
  readonly onFileTrouble: OnRestFileTrouble;
}

export interface RestProgress {
  readonly remainingBytes: number;
  /** Over the wire, since the hand-over. */
  readonly wireBytes: number;
  /** Pages that a vCPU of the dest waited for. */
  readonly requestedPages: number;
  readonly reconnects: number;
  /** Null where nothing goes by a share, or no more does. */
  readonly fallback: MigrationFallback | null;
}

/** What is known of the part that did not wait for the hand-over. */
interface SentBefore {
  /** Null where nothing goes by a share. */
  readonly place: PageFilePlace | null;
  readonly hashes: SentPageHashes | null;
  readonly digest: () => string | null;
  readonly hottestPages: (countMax: number) => Promise<PagePlace[]>;
}

export class MemoryRest {
  readonly #store: PageStore;
  readonly #service: PageService;
  readonly #path: string;
  readonly #options: MemoryRestOptions;
  /** Null where nothing goes by a share. */
  readonly #place: PageFilePlace | null;
  readonly #hashes: SentPageHashes | null;
  #file: RestFile | null = null;
  /** What is under way for an agent that starts anew. */
  #indexed: Promise<void> = Promise.resolve();
  #cancelTimer: () => void = () => undefined;
  readonly #served: Promise<void>;
  readonly #digest: () => string | null;
  readonly #hottestPages: SentBefore["hottestPages"];
  #closed: Promise<void> | null = null;

  private constructor(store: PageStore, options: MemoryRestOptions, sent: SentBefore) {
    const { dialPages: dialer, logger } = options;
    this.#store = store;
    this.#path = pathOf(options.memoryDir, options.about.migrationId);
    this.#options = options;
    this.#place = sent.place;
    this.#hashes = sent.hashes;
    this.#digest = sent.digest;
    this.#hottestPages = sent.hottestPages;
    this.#service = new PageService({
      ...options,
      store,
      dialer,
      hashes: sent.hashes,
      ramDigest: sent.digest,
      onProgress: () => undefined,
      onFailed: (unreadable) => {
        logger.error(unreadable, "a page of the store cannot be read; trying again");
      },
    });
    this.#served = this.#service.run();
  }

  /**
   * From now on QEMU does not wait for the link. Rejects where there is no room for a store.
   * `fileKey` is null where nothing shall go by a share.
   */
  static async drain(
    ram: RamTransfer,
    blocks: readonly RamBlock[],
    {
      fileKey,
      start,
      ...options
    }: MemoryRestOptions & { readonly fileKey: PageFileKey | null; readonly start: DrainStart },
  ): Promise<MemoryRest> {
    const path = pathOf(options.memoryDir, options.about.migrationId);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await checkRoom(dirname(path), blocks);
    const store = await PageStore.create({
      ...{ path, blocks, onFailed: options.onFailed },
      onRoom: () => {
        ram.roomAgain();
      },
    });
    if (fileKey !== null) await keepFileKey(path, fileKey);
    ram.drain(store, deviceStateReader(), start);
    const { sender } = ram;
    const hashes: SentPageHashes = {
      page: (block, page, data) => {
        sender.served(block, page, data);
      },
      zeroPage: (block, page) => {
        sender.servedZero(block, page);
      },
    };
    const place = placeOf(options, blocks, fileKey);
    return new MemoryRest(store, options, {
      ...{ place, hashes },
      digest: () => sender.digest(),
      hottestPages: (countMax) => sender.hottestPages(countMax),
    });
  }

  /**
   * What an earlier life of the agent has stored of this migration; null where it has nothing.
   * Rejects where it cannot be read, or that cannot be told.
   */
  static async find(options: MemoryRestOptions): Promise<MemoryRest | null> {
    const { migrationId, epoch } = options.about;
    const path = pathOf(options.memoryDir, migrationId);
    if (!(await mayExist(indexPathOf(path)))) return null;
    const found = await readIndex(indexPathOf(path));
    if (found.migrationId !== migrationId || found.epoch !== epoch)
      throw new Error(`${indexPathOf(path)} is of another hand-over`);
    const place = placeOf(options, found.blocks, await readFileKey(path));
    const { onFailed } = options;
    const onRoom = (): void => undefined;
    const store = await PageStore.reopen({ path, blocks: found.blocks, onRoom, onFailed }, found);
    // Hashes of what was sent in an earlier life are gone with it.
    const rest = new MemoryRest(store, options, {
      ...{ place, hashes: null },
      digest: () => null,
      hottestPages: () => Promise.resolve([]),
    });
    rest.handedOver();
    // Its first steps are long past, if it runs.
    rest.#service.setPush({ isRestDue: true });
    return rest;
  }

  /**
   * The guest stands still, and every page has come: resolves when all of them can be read, also by
   * an agent that starts anew, and the dest can ask for them.
   */
  async keep(): Promise<void> {
    this.#indexed = this.#index();
    await this.#indexed;
    await this.#service.connected;
  }

  async #index(): Promise<void> {
    await this.#store.settled();
    this.#findHot().catch((error: unknown) => {
      this.#options.logger.warn({ err: error }, "what the guest needs first is not known");
    });
    await this.#store.saveIndex(this.#options.about);
  }

  /** The dest may have the guest: what it lacks goes by the share as well, where there is one. */
  handedOver(): void {
    const { logger, clock, onFileTrouble: onTrouble } = this.#options;
    this.#cancelTimer = clock.after(FIRST_STEPS_MS, () => {
      this.#service.setPush({ isRestDue: true });
    });
    if (this.#place === null || this.#closed !== null) return;
    const rest = { place: this.#place, store: this.#store, hashes: this.#hashes };
    this.#file ??= new RestFile({ ...rest, logger, onTrouble });
  }

  get progress(): RestProgress {
    const { sentBytes, requestedPages, reconnects } = this.#service.counters;
    return {
      remainingBytes: this.#service.remainingPages * limits.PAGE_BYTES,
      wireBytes: sentBytes,
      requestedPages,
      reconnects,
      fallback: fallbackOf(this.#file),
    };
  }

  /** Holds for what nobody waits for. */
  setBandwidthLimit(bytesPerSecond: number | null): void {
    this.#service.setBandwidthLimit(bytesPerSecond);
  }

  /** Over all of memory, once all of the store was served; null where an earlier life served a part. */
  get digest(): string | null {
    return this.#digest();
  }

  /** Serves no more; the store stays. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  /** Closed before. Nobody can ask for it any more. */
  async discard(): Promise<void> {
    await removePageStore(this.#path);
    if (this.#place !== null) discardRestFile(this.#place.path, this.#options.logger);
  }

  async #findHot(): Promise<void> {
    this.#service.setPush({ hot: await this.#hottestPages(HOT_PAGES_MAX) });
  }

  async #close(): Promise<void> {
    this.#service.stop();
    this.#cancelTimer();
    // It would come behind a removal.
    const indexed = this.#indexed.catch(() => undefined);
    await Promise.all([this.#served, this.#file?.stop(), indexed]);
    await this.#store.close();
  }
}

async function readIndex(path: string): Promise<StoreIndex> {
  try {
    return decodeStoreIndex(await readFile(path));
  } catch (error) {
    throw new Error(`${path} cannot be used: ${messageOf(error)}`, { cause: error });
  }
}

function fallbackOf(file: RestFile | null): MigrationFallback | null {
  const phase = file?.phase ?? "stopped";
  if (phase === "stopped") return null;
  return phase === "writing" ? "growing" : phase;
}

/** In these states the dest may lack what is only here. */
export function mayBeAskedFor({ phase }: SourceOwnership): boolean {
  return phase === "handed-off" || phase === "released" || phase === "unclear";
}

/**
 * What no dest can ask for: stores that were never complete, and those of hand-overs that are longer
 * past than any journal tells of. Those of `open` ones, by their migrations, stay.
 */
export async function removeOldRests(
  memoryDir: string,
  { open, now }: { readonly open: ReadonlySet<string>; readonly now: Date },
): Promise<void> {
  const names = await readdir(memoryDir).catch(() => []);
  const ids = new Set(names.map((name) => name.split(".", 1)[0]!));
  for (const id of ids) {
    if (open.has(id)) continue;
    const indexedMs = await modifiedMs(indexPathOf(pathOf(memoryDir, id)));
    if (indexedMs === null || now.getTime() - indexedMs > KEPT_MS_MAX)
      await discardRest(memoryDir, id);
  }
}

/** Null where there is none; a file of which nothing can be told is as new as can be. */
async function modifiedMs(path: string): Promise<number | null> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? null : Infinity;
  }
}

/** False where there is certainly nothing that a dest could ask for. */
export async function mayHaveRest(memoryDir: string, migrationId: string): Promise<boolean> {
  return mayExist(indexPathOf(pathOf(memoryDir, migrationId)));
}

export async function discardRest(memoryDir: string, migrationId: string): Promise<void> {
  await removePageStore(pathOf(memoryDir, migrationId));
}

/** The page file of a hand-over, by what an earlier life has kept; null where it had none. */
export async function restFilePath({
  memoryDir,
  sharedDir,
  about,
}: Pick<MemoryRestOptions, "memoryDir" | "sharedDir" | "about">): Promise<string | null> {
  const key = await readFileKey(pathOf(memoryDir, about.migrationId));
  return key === null || sharedDir === null ? null : pageFilePath(sharedDir, about);
}

/** Gives device state without what stands behind it, once all of it has come. */
function deviceStateReader(): (bytes: Uint8Array) => Buffer | null {
  const tail = new DeviceStateTail(limits.DEVICE_STATE_BYTES_MAX);
  let isOver = false;
  return (bytes) => {
    assert(!isOver, "QEMU sends nothing behind the description of its devices");
    tail.push(bytes);
    if (tail.deviceBytes === null) return null;
    isOver = true;
    return Buffer.from(tail.bytes.subarray(0, tail.deviceBytes));
  };
}

async function checkRoom(directory: string, blocks: readonly RamBlock[]): Promise<void> {
  const bytes = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= bytes) return;
  const detail = `Post-copy may need ${bytes} bytes in ${directory}, which has ${bavail * bsize} left.`;
  throw new ProblemError(detail, { code: "post-copy-unavailable" });
}

function placeOf(
  { sharedDir, about }: Pick<MemoryRestOptions, "sharedDir" | "about">,
  blocks: readonly RamBlock[],
  key: PageFileKey | null,
): PageFilePlace | null {
  return key === null || sharedDir === null
    ? null
    : pageFilePlace(sharedDir, about, { key, blocks });
}

function pathOf(memoryDir: string, migrationId: string): string {
  return join(memoryDir, `${migrationId}${SUFFIX}`);
}

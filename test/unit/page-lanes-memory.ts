/**
 * The memory that page lanes carry in tests: a store that takes its time, and a QEMU that remembers
 * what it was given.
 */
import { createHash } from "node:crypto";
import { createLogger, PageSet } from "../../packages/agent/src/index.ts";
import type { PagePlacer } from "../../packages/dest-agent/src/postcopy/page-placer.ts";
import type { PagePlace } from "../../packages/source-agent/src/postcopy/push.ts";
import type { StoredPages } from "../../packages/source-agent/src/postcopy/stored-pages.ts";

const PAGE_BYTES = 4096;
export const ZEROS = Buffer.alloc(PAGE_BYTES);

export type Random = () => number;

export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const silent = { write: (): void => undefined };
export const logger = createLogger({ role: "source", level: "error", stream: silent });

export function key(block: number, page: number): string {
  return `${block}:${page}`;
}

export function digestOf(pages: ReadonlyMap<string, Buffer>): string {
  const hash = createHash("sha256");
  for (const name of [...pages.keys()].sort()) hash.update(name).update(pages.get(name) ?? "");
  return hash.digest("hex");
}

/** What the dest lacks at first, with its bytes. */
export class MemoryStore implements StoredPages {
  readonly blocks: readonly { readonly lengthBytes: number }[];
  readonly pages: PageSet;
  readonly hot: PagePlace[] = [];
  readonly bytes = new Map<string, Buffer>();
  /** Reads fail while it says so. */
  isBroken: (block: number, page: number) => boolean = () => false;
  reads = 0;
  readsAtOnce = 0;
  readsAtOnceMax = 0;
  readonly #random: Random;

  constructor(blockPages: readonly number[], random: Random, share: number) {
    this.#random = random;
    this.blocks = blockPages.map((pages) => ({ lengthBytes: pages * PAGE_BYTES }));
    this.pages = new PageSet(this.blocks);
    for (const [block, pages] of blockPages.entries()) {
      let isIn = random() < share;
      for (let page = 0; page < pages; page++) {
        // Runs, as memory has them, and single pages.
        if (random() < 0.2) isIn = random() < share;
        if (!isIn) continue;
        this.#add(block, page);
        if (random() < 0.1) this.hot.push({ block, page });
      }
    }
  }

  isZero(block: number, page: number): boolean {
    return this.bytes.get(key(block, page)) === ZEROS;
  }

  async read(block: number, firstPage: number, pages: number, into: Buffer): Promise<void> {
    this.reads++;
    this.readsAtOnceMax = Math.max(this.readsAtOnceMax, ++this.readsAtOnce);
    for (let ticks = this.#random() * 4; ticks > 1; ticks--) await tick();
    this.readsAtOnce--;
    for (let page = firstPage; page < firstPage + pages; page++) {
      if (this.isBroken(block, page)) throw new Error("EIO");
      const bytes = this.bytes.get(key(block, page));
      if (bytes === undefined || bytes === ZEROS) throw new Error("a page that is not in the file");
      bytes.copy(into, (page - firstPage) * PAGE_BYTES);
    }
  }

  #add(block: number, page: number): void {
    this.pages.add(block, page);
    const isZero = this.#random() < 0.15;
    const bytes = isZero ? ZEROS : Buffer.alloc(PAGE_BYTES, `${block}:${page}:`);
    if (!isZero) bytes.writeDoubleBE(this.#random(), 1000);
    this.bytes.set(key(block, page), bytes);
  }
}

/** What QEMU has, whichever agent gave it, and what is wrong with it. */
export interface Memory {
  readonly random: Random;
  readonly store: MemoryStore;
  readonly placed: Map<string, Buffer>;
  fault(text: string): void;
}

/** QEMU's memory, which a life of the dest agent adds to. */
export class MemoryPlacer implements PagePlacer {
  readonly missing: PageSet;
  isEnded = false;
  isDead = false;
  readonly #world: Memory;
  readonly #isFirstLife: boolean;
  #collected: [string, Buffer][] = [];

  constructor(world: Memory, isFirstLife: boolean) {
    this.#world = world;
    this.#isFirstLife = isFirstLife;
    this.missing = new PageSet(world.store.blocks);
    for (const { block, first, count } of world.store.pages.runs(1000)) {
      for (let page = first; page < first + count; page++) {
        if (!world.placed.has(key(block, page))) this.missing.add(block, page);
      }
    }
  }

  page(block: number, page: number, data: Buffer, offset: number): void {
    this.#collect(block, page, Buffer.from(data.subarray(offset, offset + PAGE_BYTES)));
  }

  zeroPage(block: number, page: number): void {
    this.#collect(block, page, ZEROS);
  }

  async flush(): Promise<void> {
    // Now and then QEMU is slow enough for a pair of lanes to be lost and found meanwhile.
    const ticksMax = this.#world.random() < 0.02 ? 100 : 4;
    for (let ticks = this.#world.random() * ticksMax; ticks > 1; ticks--) await tick();
    // The agent that waited for it is dead, and what it had collected is not in QEMU.
    if (this.isDead) await new Promise(() => undefined);
    for (const [name, bytes] of this.#collected.splice(0)) {
      if (this.#world.placed.has(name)) this.#world.fault(`${name} was placed twice`);
      if (this.#world.store.bytes.get(name)?.equals(bytes) !== true) {
        this.#world.fault(`${name} has other bytes`);
      }
      this.#world.placed.set(name, bytes);
    }
  }

  digest(): string | null {
    return this.#isFirstLife ? digestOf(this.#world.placed) : null;
  }

  end(): Promise<void> {
    if (this.missing.count > 0 || this.#collected.length > 0) this.#world.fault("ended too early");
    if (this.isEnded) this.#world.fault("ended twice");
    this.isEnded = true;
    return Promise.resolve();
  }

  #collect(block: number, page: number, bytes: Buffer): void {
    if (this.isDead) this.#world.fault("a dead agent places pages");
    if (!this.missing.remove(block, page)) this.#world.fault("a page that is not missing");
    this.#collected.push([key(block, page), bytes]);
  }
}

export function tick(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Both ends of the page lanes, the real ones, in a world of their own: lanes of memory whose messages
 * a seed delivers, delays and cuts, a store that takes its time, and a QEMU that remembers what it was
 * given.
 */
import { createHash } from "node:crypto";
import { createLogger, ManualClock, PageSet } from "@vmferry/agent";
import { PeerError } from "@vmferry/agent";
import type { ControlMessageOf } from "@vmferry/protocol";
import { PageFetch, type WholeMemory } from "../../packages/dest-agent/src/postcopy/page-fetch.ts";
import type { PagePlacer } from "../../packages/dest-agent/src/postcopy/page-placer.ts";
import type { PageLink } from "../../packages/dest-agent/src/session/page-link.ts";
import type { OpenPageLane } from "../../packages/source-agent/src/adapters/page-socket.ts";
import type { PageDialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";
import {
  PageService,
  type UnreadablePage,
} from "../../packages/source-agent/src/postcopy/page-service.ts";
import type { StoredPages } from "../../packages/source-agent/src/postcopy/stored-pages.ts";

export const PAGE_BYTES = 4096;
const ZEROS = Buffer.alloc(PAGE_BYTES);

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
const logger = createLogger({ role: "source", level: "silent" as "error", stream: silent });

function key(block: number, page: number): string {
  return `${block}:${page}`;
}

function digestOf(pages: ReadonlyMap<string, Buffer>): string {
  const hash = createHash("sha256");
  for (const name of [...pages.keys()].sort()) hash.update(name).update(pages.get(name)!);
  return hash.digest("hex");
}

/** What the dest lacks at first, with its bytes. */
export class MemoryStore implements StoredPages {
  readonly blocks: readonly { readonly lengthBytes: number }[];
  readonly pages: PageSet;
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
        if (isIn) this.#add(block, page);
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

/** QEMU's memory, which a life of the dest agent adds to. */
export class MemoryPlacer implements PagePlacer {
  readonly missing: PageSet;
  isEnded = false;
  isDead = false;
  readonly #world: World;
  readonly #isFirstLife: boolean;
  #collected: [string, Buffer][] = [];

  constructor(world: World, isFirstLife: boolean) {
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
      if (!bytes.equals(this.#world.store.bytes.get(name)!)) {
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

/** A message, or the news that the lane is gone, on its way. */
interface Parcel {
  readonly deliver: () => void;
}

/** One WebSocket: two directions, each in order; either can be slower than everything else. */
class MemoryLane {
  readonly toDest: Parcel[] = [];
  readonly toSource: Parcel[] = [];
  isCut = false;
  readonly source: OpenPageLane;
  #sourceHears: ((bytes: Buffer) => void) | null = null;
  #destHears: ((bytes: Buffer) => void) | null = null;
  #destEnds: (reason: Error) => void = () => undefined;
  #closeSource: (reason: Error) => void = () => undefined;

  constructor(world: World, hello: ControlMessageOf<"pages-hello">) {
    this.source = {
      roundTripMs: 2,
      bufferedBytes: 0,
      closed: new Promise((resolve) => {
        this.#closeSource = resolve;
      }),
      send: (bytes, flushed) => {
        // As a socket does: the bytes have left, and the buffer is somebody else's.
        const copy = Buffer.from(bytes);
        void tick().then(flushed);
        if (this.isCut) return;
        world.seen.set(hello.lane, (world.seen.get(hello.lane) ?? 0) + 1);
        if (copy[6] === 2) world.compressed++;
        this.toDest.push({ deliver: () => this.#destHears?.(copy) });
      },
      listen: (onMessage) => {
        this.#sourceHears = onMessage;
      },
      close: () => {
        this.cut();
      },
    };
    const link: PageLink = {
      send: (bytes, flushed) => {
        const copy = Buffer.from(bytes);
        void tick().then(flushed);
        if (this.isCut) return;
        this.toSource.push({
          deliver: () => {
            if (this.#sourceHears === null) world.fault("nobody listens at the source");
            this.#sourceHears?.(copy);
          },
        });
      },
      listen: (onMessage, onEnd) => {
        this.#destHears = onMessage;
        this.#destEnds = onEnd;
      },
      close: () => {
        this.#destEnds = () => undefined;
        this.cut();
      },
    };
    this.toDest.push({
      deliver: () => {
        world.fetch.attach(hello.lane, hello.attempt, link);
      },
    });
  }

  /** What is under way is lost; each side hears of it in its time. */
  cut(): void {
    if (this.isCut) return;
    this.isCut = true;
    const reason = new PeerError("cut", { code: "peer-lost", closeCode: null });
    this.toDest.splice(0, Infinity, { deliver: () => this.#destEnds(reason) });
    this.toSource.splice(0, Infinity, { deliver: () => this.#closeSource(reason) });
  }
}

export interface WorldOptions {
  readonly blockPages: readonly number[];
  readonly share: number;
  readonly compression: boolean;
  readonly bandwidthBytesPerSecond: number | null;
}

export class World {
  readonly random: Random;
  readonly clock = new ManualClock();
  readonly store: MemoryStore;
  readonly placed = new Map<string, Buffer>();
  readonly faults: string[] = [];
  readonly unreadable: UnreadablePage[] = [];
  /** Messages of each lane that the source has sent. */
  readonly seen = new Map<string, number>();
  compressed = 0;
  fetch!: PageFetch;
  service!: PageService;
  placer: MemoryPlacer | null = null;
  whole: WholeMemory | null = null;
  /** Share of dials that nobody answers. */
  deafShare = 0;
  readonly #options: WorldOptions;
  readonly #lanes: MemoryLane[] = [];
  #destLives = 0;
  #sourceLives = 0;

  constructor(seed: number, options: WorldOptions) {
    this.random = randomOf(seed);
    this.#options = options;
    this.store = new MemoryStore(options.blockPages, this.random, options.share);
    this.startDest();
    this.startSource();
  }

  fault(text: string): void {
    this.faults.push(text);
  }

  get isWhole(): boolean {
    return this.whole !== null;
  }

  get openLanes(): number {
    return this.#lanes.filter(({ isCut }) => !isCut).length;
  }

  /** QEMU of this life of the dest is loaded. */
  begin(): void {
    this.placer = new MemoryPlacer(this, this.#destLives === 1);
    this.fetch.begin(this.placer);
  }

  startDest(): void {
    const fetch = new PageFetch({
      clock: this.clock,
      logger,
      compression: this.#options.compression,
      onInflated: () => undefined,
      onProgress: () => undefined,
    });
    this.fetch = fetch;
    this.placer = null;
    this.#destLives++;
    fetch.whole.then(
      (whole) => {
        if (fetch === this.fetch) this.whole = whole;
      },
      (error: unknown) => {
        this.fault(`fetching failed: ${String(error)}`);
      },
    );
  }

  /** The agent dies, its QEMU stays. */
  restartDest(): void {
    if (this.placer !== null) this.placer.isDead = true;
    this.fetch.close();
    for (const lane of this.#lanes) lane.cut();
    this.startDest();
  }

  startSource(): void {
    const isFirst = ++this.#sourceLives === 1;
    const hashed = new Map<string, Buffer>();
    this.service = new PageService({
      store: this.store,
      dialer: this.#dialer(),
      about: { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" },
      clock: this.clock,
      random: this.random,
      logger,
      bandwidthBytesPerSecond: this.#options.bandwidthBytesPerSecond,
      compression: this.#options.compression,
      hashes: {
        page: (block, page, data) => void hashed.set(key(block, page), Buffer.from(data)),
        zeroPage: (block, page) => void hashed.set(key(block, page), ZEROS),
      },
      ramDigest: () => (isFirst ? digestOf(hashed) : null),
      onProgress: () => undefined,
      onFailed: (page) => this.unreadable.push(page),
    });
    this.service.run().catch((error: unknown) => {
      this.fault(`serving failed: ${String(error)}`);
    });
  }

  restartSource(): void {
    for (const lane of this.#lanes) lane.cut();
    this.service.stop();
    this.clock.advance(10);
    this.startSource();
  }

  cutOneLane(): void {
    this.#pick(this.#lanes.filter(({ isCut }) => !isCut))?.cut();
  }

  /** A vCPU touches a page that is missing, often one behind the last. */
  touch(last: { block: number; page: number }): void {
    const { placer } = this;
    if (placer === null) return;
    const from = this.random() < 0.6 ? last : this.#anywhere();
    const run = placer.missing.next(from.block, from.page, 1) ?? placer.missing.next(0, 0, 1);
    if (run === null) return;
    const { block, first: firstPage } = run;
    last.block = block;
    last.page = firstPage;
    this.fetch.requested({ block, firstPage, pageCount: 1 });
  }

  /** Delivers one message of any lane. False when there is none. */
  deliver(): boolean {
    const queues = this.#lanes.flatMap(({ toDest, toSource }) => [toDest, toSource]);
    const queue = this.#pick(queues.filter(({ length }) => length > 0));
    queue?.shift()!.deliver();
    for (let at = this.#lanes.length - 1; at >= 0; at--) {
      const { isCut, toDest, toSource } = this.#lanes[at]!;
      if (isCut && toDest.length + toSource.length === 0) this.#lanes.splice(at, 1);
    }
    return queue !== undefined;
  }

  /** Delivers until memory is whole; what happens meanwhile is the caller's. */
  async run(meanwhile: (turn: number) => void = () => undefined): Promise<void> {
    let idle = 0;
    for (let turn = 0; !this.isWhole && this.faults.length === 0; turn++) {
      if (turn > 300_000) throw new Error("it does not come to an end");
      meanwhile(turn);
      if (this.deliver()) {
        idle = 0;
        this.clock.advance(this.random() * 0.2);
      } else {
        // Nothing is under way: somebody reads, compresses, or waits for time to pass.
        await tick();
        this.clock.advance(this.random() * (idle++ < 20 ? 0.2 : 20));
      }
      if (this.random() < 0.3) await tick();
    }
  }

  stop(): void {
    this.service.stop();
    this.fetch.close();
  }

  #dialer(): PageDialer {
    return {
      pages: async (hello, signal) => {
        await tick();
        signal.throwIfAborted();
        if (this.random() < this.deafShare) {
          throw new PeerError("nobody answers", { code: "peer-unreachable", url: "ws://dest" });
        }
        const lane = new MemoryLane(this, hello);
        this.#lanes.push(lane);
        return lane.source;
      },
    };
  }

  #anywhere(): { readonly block: number; readonly page: number } {
    const block = Math.floor(this.random() * this.store.blocks.length);
    const pages = this.store.pages.blockPages[block]!;
    return { block, page: Math.floor(this.random() * pages) };
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random() * from.length)];
  }
}

export function tick(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Both ends of the page lanes, the real ones, in a world of their own: lanes of memory whose messages
 * a seed delivers, delays and cuts.
 */
import { ManualClock, PeerError } from "../../packages/agent/src/index.ts";
import type { ControlMessageOf } from "@vmferry/protocol";
import { PageFetch, type WholeMemory } from "../../packages/dest-agent/src/postcopy/page-fetch.ts";
import type { PagesFromFile } from "../../packages/dest-agent/src/postcopy/pages-from-file.ts";
import type { PageLink } from "../../packages/dest-agent/src/session/page-link.ts";
import type { OpenPageLane } from "../../packages/source-agent/src/adapters/page-socket.ts";
import type { PageDialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";
import {
  PageService,
  type SentPageHashes,
  type UnreadablePage,
} from "../../packages/source-agent/src/postcopy/page-service.ts";
import {
  digestOf,
  key,
  logger,
  MemoryPlacer,
  MemoryStore,
  randomOf,
  tick,
  ZEROS,
  type Memory,
  type Random,
} from "./page-lanes-memory.ts";

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
    this.toDest.splice(0, Infinity, {
      deliver: () => {
        this.#destEnds(reason);
      },
    });
    this.toSource.splice(0, Infinity, {
      deliver: () => {
        this.#closeSource(reason);
      },
    });
  }
}

export interface WorldOptions {
  readonly blockPages: readonly number[];
  readonly share: number;
  readonly compression: boolean;
  readonly bandwidthBytesPerSecond: number | null;
}

export class World implements Memory {
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
  /** What this life of the source has sent. */
  hashes!: SentPageHashes;
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

  /** QEMU of this life of the dest is loaded. */
  begin(file: PagesFromFile | null = null): void {
    this.placer = new MemoryPlacer(this, this.#destLives === 1);
    this.fetch.begin(this.placer, file);
  }

  startDest(): void {
    const fetch = new PageFetch({
      clock: this.clock,
      logger,
      compression: this.#options.compression,
      maySayAll: this.#destLives === 0,
      onProgress: () => undefined,
      onEndOverdue: () => undefined,
      onPageFault: () => undefined,
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
    this.hashes = {
      page: (block, page, data) => {
        hashed.set(key(block, page), Buffer.from(data));
      },
      zeroPage: (block, page) => {
        hashed.set(key(block, page), ZEROS);
      },
    };
    this.service = new PageService({
      store: this.store,
      dialer: this.#dialer(),
      about: { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" },
      clock: this.clock,
      random: this.random,
      logger,
      bandwidthBytesPerSecond: this.#options.bandwidthBytesPerSecond,
      linkBytesPerSecond: isFirst ? 50e6 : null,
      compression: this.#options.compression,
      hashes: this.hashes,
      ramDigest: () => (isFirst ? digestOf(hashed) : null),
      onProgress: () => undefined,
      onFailed: (page) => this.unreadable.push(page),
    });
    this.service.setPush({ isRestDue: true, hot: isFirst ? this.store.hot : [] });
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
    queue?.shift()?.deliver();
    for (const lane of [...this.#lanes]) {
      const isOver = lane.isCut && lane.toDest.length + lane.toSource.length === 0;
      if (isOver) this.#lanes.splice(this.#lanes.indexOf(lane), 1);
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
    const pages = this.store.pages.blockPages[block] ?? 0;
    return { block, page: Math.floor(this.random() * pages) };
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.random() * from.length)];
  }
}

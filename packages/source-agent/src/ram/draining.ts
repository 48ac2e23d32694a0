/**
 * Pages on their way to a store instead of the link, stage by stage: `DrainStage`. The dest is told
 * what it lacks before the stun as far as possible, and is sent no page any more once it was told
 * of the first.
 */
import type { PageHashes } from "@vmferry/agent";
import type { RamBlock } from "@vmferry/qemu";
import { ColdPages } from "./cold-pages.ts";
import type { Drain, DrainStage } from "./drain.ts";
import type { FrameCollector, FrameQueue } from "./frame-collector.ts";
import type { HeatMap } from "./heat-map.ts";
import type { HeldPages } from "./held-pages.ts";
import { MissingPages } from "./missing-pages.ts";

export interface DrainedMemory {
  readonly blocks: readonly RamBlock[];
  readonly hashes: PageHashes;
  readonly heat: HeatMap;
  readonly held: HeldPages;
}

export interface DrainingOptions {
  readonly memory: DrainedMemory;
  readonly frames: FrameCollector;
  readonly out: FrameQueue;
  /** Of QEMU, counted from 1. */
  readonly pass: number;
}

export class Draining {
  readonly #drain: Drain;
  readonly #options: DrainingOptions;
  readonly #missing: MissingPages;
  #stage: DrainStage;
  #pass: number;
  #cold: ColdPages | null = null;

  constructor(drain: Drain, options: DrainingOptions) {
    const { memory, frames, pass } = options;
    this.#drain = drain;
    this.#options = options;
    this.#pass = pass;
    this.#stage = drain.link !== null && pass <= 1 ? "shared" : "telling";
    const onCame = (index: number): void => {
      if (this.#pass > 1) memory.heat.counted(index, this.#pass);
    };
    this.#missing = new MissingPages({ ...memory, store: drain.store, onCame });
    if (this.#stage === "shared") return;
    frames.enter("stream");
    this.#missing.putHeld(memory.held);
  }

  get stage(): DrainStage {
    return this.#stage;
  }

  /** What the store has, and the dest does not. */
  get missingPages(): number {
    return this.#drain.store.pages.count;
  }

  get deviceState(): Drain["deviceState"] {
    return this.#drain.deviceState;
  }

  /** The next page goes to the link. Zeros cost it nothing, as long as it takes anything. */
  goesByLink(isZero: boolean): boolean {
    const { link } = this.#drain;
    if (this.#stage !== "shared" || link === null) return false;
    return (isZero || link.isShared) && link.hasRoom;
  }

  put(block: number, page: number, source: Buffer, offset: number): void {
    this.#missing.put(block, page, source, offset);
  }

  putZero(block: number, page: number): void {
    this.#missing.putZero(block, page);
  }

  isMissing(block: number, page: number): boolean {
    return this.#drain.store.pages.has(block, page);
  }

  /** The first page of another pass has come, and was not put yet. */
  passOver(pass: number): void {
    this.#pass = pass;
    if (this.#stage === "shared") {
      this.#options.frames.enter("stream");
      this.#stage = "counting";
    } else if (this.#stage === "telling" && !this.#missing.isBeingTold) {
      // One that waits for the link tells of later passes as well.
      this.#tell();
    }
  }

  /** The third pass has begun: it is known where the guest is quiet. What was put is to be written soon. */
  beginCold(onSent: () => void): void {
    if (this.#stage !== "counting") return;
    this.#stage = "cold";
    const { memory, frames } = this.#options;
    this.#cold = new ColdPages({
      ...memory,
      ...{ store: this.#drain.store, frames, pass: this.#pass },
      onSent: (block, page) => {
        this.#missing.sent(block, page);
        onSent();
      },
    });
  }

  /** Sends of what is cold while the link has room; tells whether any may be left. */
  fillCold(): boolean {
    const { link } = this.#drain;
    const cold = this.#cold;
    if (cold === null || link === null) return false;
    this.#options.frames.enter("pages");
    const isMore = cold.fill(link);
    if (!isMore) this.endCold();
    return isMore;
  }

  /** What is left of what is cold follows the guest. */
  endCold(): void {
    if (this.#stage === "telling") return;
    this.#stage = "telling";
    this.#cold = null;
    this.#options.frames.enter("stream");
    this.#tell();
  }

  /** RAM is over. */
  end(): void {
    this.#options.frames.enter("stream");
    if (this.#stage === "telling") this.#tell();
    else this.endCold();
  }

  #tell(): void {
    const frames = this.#missing.frames(this.#options.frames.pass);
    this.#options.out.enqueue({ next: () => frames.next().value ?? null });
  }
}

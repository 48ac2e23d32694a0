/**
 * What has to be copied of one disk, and what becomes of a guest's write meanwhile. Pure: blocks,
 * bytes and times in, decisions out.
 *
 * A cursor walks the disk, round after round. The first round copies every block, a later one the
 * blocks that were marked during the one before it. A write to a block that the cursor has yet to
 * come to needs nothing: it will be copied. Any other write is one of
 *
 *   mirror   sent on as it is
 *   marked   the block is copied in the next round: because the link is behind, because the policy
 *            is `iterate`, or because it is marked already
 *   held     the block is hot, and copied when it cools or in the last round
 *
 * So only blocks behind the cursor can be marked, and once the last round is over, with no writes
 * in it, source and dest are equal.
 */
import { assert } from "@vmferry/core";
import type { DirtyTracker } from "./dirty-tracker.ts";
import { WriteHeat } from "./write-heat.ts";

export type WriteFate = "ahead" | "mirror" | "marked" | "held";

/** Where a block is, for people to look at. */
export type BlockState = "waiting" | "marked" | "held" | "hot" | "sent";

export interface CopyPlanOptions {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly makeTracker: () => DirtyTracker;
  readonly writes: "mirror" | "iterate";
  /** Nothing is there yet: the first round is over, and whatever is written counts. */
  readonly empty?: boolean;
}

export interface BlockRun {
  readonly first: number;
  readonly count: number;
}

/** A block is hot when sending its writes costs more than this many copies of it, within seconds. */
const HOT_COPIES = 1.5;
const HOT_FACTOR_MAX = 64;
/** A held block below this part of the threshold has cooled. */
const COOL_SHARE = 0.25;
/** Blocks that are looked at in one call of `next`: a large disk must not stall the event loop. */
const SCAN_BLOCKS_MAX = 65_536;

export class CopyPlan {
  readonly blocks: number;
  /** May change at any time. */
  writes: "mirror" | "iterate";
  readonly #blockBytes: number;
  readonly #heat: WriteHeat;
  readonly #held = new Set<number>();
  /** Blocks of this round; null: every one. */
  #copySet: DirtyTracker | null = null;
  #next: DirtyTracker;
  #spare: DirtyTracker;
  #cursor = 0;
  #round = 1;
  /** Blocks of the copy set that this round has dealt with. */
  #taken = 0;
  #heldMax = 0;
  #hotFactor = 1;

  constructor(options: CopyPlanOptions) {
    this.blocks = options.blocks;
    this.#blockBytes = options.blockBytes;
    this.writes = options.writes;
    this.#heat = new WriteHeat(options.blocks);
    this.#next = options.makeTracker();
    this.#spare = options.makeTracker();
    if (options.empty === true) this.#cursor = options.blocks;
  }

  get round(): number {
    return this.#round;
  }

  /** The block that the cursor stands at; `blocks` when the round is over. */
  get cursor(): number {
    return this.#cursor;
  }

  get heldBlocks(): number {
    return this.#held.size;
  }

  /** Blocks that this round still has to copy, as far as is known. */
  get roundBlocks(): number {
    if (this.#copySet === null) return this.blocks - this.#cursor;
    return this.roundOver ? 0 : Math.max(0, this.#copySet.count - this.#taken);
  }

  /** Blocks that the next round will have to copy. */
  get markedBlocks(): number {
    return this.#next.count;
  }

  get roundOver(): boolean {
    return this.#cursor === this.blocks;
  }

  /** Decides about `bytes` written to one block; call it where the write cannot be overtaken. */
  written(block: number, bytes: number, nowMs: number): WriteFate {
    if (this.#comes(block)) return "ahead";
    const costs = this.writes === "mirror" ? bytes : this.#blockBytes;
    if (this.#held.has(block)) {
      this.#heat.add(block, costs, nowMs);
      return "held";
    }
    if (this.#next.has(block)) return "marked";
    const heat = this.#heat.add(block, costs, nowMs);
    if (heat >= this.#hotBytes && this.#held.size < this.#heldMax) {
      this.#held.add(block);
      return "held";
    }
    if (this.writes === "mirror") return "mirror";
    this.#next.mark(block);
    return "marked";
  }

  /** The block has to be copied after all: a write to it could not be mirrored, or went wrong. */
  mark(block: number): void {
    if (!this.#comes(block)) this.#next.mark(block);
  }

  /** The dest has, or is being sent or copied, all that was written to the block. */
  isSent(block: number): boolean {
    return !this.#comes(block) && !this.#held.has(block) && !this.#next.has(block);
  }

  stateOf(block: number, nowMs: number): BlockState {
    if (this.#held.has(block)) return "held";
    if (this.#comes(block)) return this.#copySet === null ? "waiting" : "marked";
    if (this.#next.has(block)) return "marked";
    return this.#heat.now(block, nowMs) >= this.#hotBytes ? "hot" : "sent";
  }

  idleMs(block: number, nowMs: number): number {
    return this.#heat.idleMs(block, nowMs);
  }

  /**
   * Moves the cursor over the next blocks to be copied, `blocksMax` neighbours at most. Null when
   * the round is over, or when there was nothing for a long way: ask `roundOver`.
   */
  next(blocksMax: number): BlockRun | null {
    // The last round often has nothing to do, and the guest waits for it.
    if (this.#copySet?.count === 0) this.#cursor = this.blocks;
    const scanEnd = Math.min(this.blocks, this.#cursor + SCAN_BLOCKS_MAX);
    while (this.#cursor < scanEnd && !this.#inCopySet(this.#cursor)) this.#cursor++;
    if (this.#cursor === scanEnd) return null;
    const first = this.#cursor;
    const end = Math.min(this.blocks, first + blocksMax);
    do this.#cursor++;
    while (this.#cursor < end && this.#inCopySet(this.#cursor));
    const count = this.#cursor - first;
    this.#taken += count;
    return { first, count };
  }

  /** In the first round, once `count` more blocks are known to be holes that nobody is filling. */
  skip(count: number): void {
    assert(this.#copySet === null, "only the first round skips holes");
    this.#cursor = Math.min(this.blocks, this.#cursor + count);
  }

  /** Begins a round over what is marked. */
  startRound(): void {
    assert(this.roundOver, "a round begins when the last one is over");
    this.#beginRound();
  }

  /** The guest stands still: the last round copies whatever is not at the dest. */
  startLastRound(): void {
    for (const block of this.#held) this.#next.mark(block);
    this.#held.clear();
    this.#heldMax = 0;
    if (this.#copySet === null) {
      for (let block = this.#cursor; block < this.blocks; block++) this.#next.mark(block);
    } else {
      for (let block = this.#cursor; block < this.blocks; block++) {
        if (this.#copySet.has(block)) this.#next.mark(block);
      }
    }
    this.#beginRound();
  }

  /** How many blocks may be held. Above that the coolest go, and it takes more to become hot. */
  setHeldMax(blocks: number, nowMs: number): void {
    this.#heldMax = blocks;
    if (this.#held.size > blocks) {
      this.#hotFactor = Math.min(HOT_FACTOR_MAX, this.#hotFactor * 2);
      const coolest = [...this.#held].sort(
        (a, b) => this.#heat.now(a, nowMs) - this.#heat.now(b, nowMs),
      );
      for (const block of coolest.slice(0, this.#held.size - blocks)) this.#letGo(block);
    } else if (this.#held.size < blocks / 2) this.#hotFactor = Math.max(1, this.#hotFactor / 2);
  }

  /** Held blocks that are no longer written are copied in the next round. */
  releaseCooled(nowMs: number): void {
    for (const block of this.#held) {
      if (this.#heat.now(block, nowMs) < this.#hotBytes * COOL_SHARE) this.#letGo(block);
    }
  }

  get #hotBytes(): number {
    return HOT_COPIES * this.#hotFactor * this.#blockBytes;
  }

  #letGo(block: number): void {
    this.#held.delete(block);
    this.#next.mark(block);
  }

  #beginRound(): void {
    const over = this.#copySet ?? this.#spare;
    over.clear();
    this.#copySet = this.#next;
    this.#next = over;
    this.#cursor = 0;
    this.#taken = 0;
    this.#round++;
  }

  /** The cursor has yet to come to the block in this round. */
  #comes(block: number): boolean {
    return block >= this.#cursor && this.#inCopySet(block);
  }

  #inCopySet(block: number): boolean {
    return this.#copySet === null || this.#copySet.has(block);
  }
}

/**
 * One disk of a running guest on its way to the dest. It stands between the guest and the image, so
 * that every write passes here; what becomes of each is the plan's to say (copy-plan.ts).
 *
 *   guest ─▶ write ─▶ image ─▶ mirrored, or marked      ┐
 *                                                       ├─▶ DiskFrames ─▶ the dest
 *   copyNext ─▶ image ─▶ zero? known to the dest? ──────┘
 *
 * Writes and copies of the same place take turns (range-lock.ts), and what they send is enqueued
 * before the next has its turn: so the dest sees them in the order in which they happened here.
 *
 * A write is acknowledged when the image has it, and what has to follow from it is settled: the
 * guest does not wait for the link, unless `throttle` says so.
 */
import type { DiskHashes } from "@vmferry/agent";
import { BlockError, type BlockDevice, type Extent } from "@vmferry/block";
import type { Clock } from "@vmferry/core";
import { CopyPlan, type BlockRun } from "./copy-plan.ts";
import type { DirtyTracker } from "./dirty-tracker.ts";
import { NO_COUNTS, type DiskCounters } from "./disk-counters.ts";
import type { DiskFrames } from "./disk-frames.ts";
import { HoleMap } from "./hole-map.ts";
import { isZero } from "./is-zero.ts";
import { RangeLock } from "./range-lock.ts";

/** Read at once in a copy, where blocks are smaller. */
const WINDOW_BYTES = 256 * 1024;
const BUFFERS_MAX = 4;
/** A block that was not written for so long is worth reading again for its hash. */
const SETTLED_MS = 400;
/** A large disk with little to do must not keep the event loop. */
const LOOK_UNITS_MAX = 262_144;

export interface MirroredDiskOptions {
  readonly image: BlockDevice;
  readonly frames: DiskFrames;
  /** Of what is tracked as one; a multiple of the hashes' units. */
  readonly blockBytes: number;
  readonly hashes: DiskHashes;
  readonly makeTracker: () => DirtyTracker;
  readonly writes: "mirror" | "iterate";
  /** The image is empty, and is filled through this object. */
  readonly empty: boolean;
  readonly clock: Clock;
  /** More waits for the link than may: writes are marked instead of mirrored. */
  readonly behind: () => boolean;
  /** Resolves when the link is not behind, and at once where nothing is sent any more. */
  readonly caughtUp: () => Promise<void>;
  /** There is no link to wait for. QEMU could not even stop a guest whose writes wait. */
  readonly isAway: () => boolean;
  /** A flush has failed, and the guest is told when this resolves. */
  readonly onFlushFailed: () => Promise<void>;
  /** The image failed a request of the guest, which was told so. */
  readonly onImageFailed: (error: unknown) => void;
  /** The guest wrote although its vCPUs stand still. */
  readonly onWrittenWhileHeld: (offset: number) => void;
}

/** `passing`: not tracked. `held`: the guest stands still, a write means that it does not. */
type Gate = "passing" | "tracked" | "held";

/** A change of the image, and how the dest is told of a part of it. */
interface Change {
  readonly offset: number;
  readonly length: number;
  /** Zeros cost the link next to nothing. */
  readonly isData: boolean;
  readonly apply: () => Promise<void>;
  readonly mirror: (from: number, to: number) => void;
}

export class MirroredDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly counters: DiskCounters = { ...NO_COUNTS };
  /** Writes wait for the link when it is behind, instead of being marked. */
  throttle = false;
  readonly plan: CopyPlan;
  readonly #options: MirroredDiskOptions;
  readonly #ranges = new RangeLock();
  /** Of which the cursor is past, but which may not have been read yet. */
  readonly #copying = new Set<BlockRun>();
  readonly #buffers: Buffer[] = [];
  readonly #holes: HoleMap;
  #gate: Gate = "passing";
  #requests = 0;
  #storesNothing = false;

  constructor(options: MirroredDiskOptions) {
    const { image, blockBytes, makeTracker, writes, empty } = options;
    this.#options = options;
    this.sizeBytes = image.sizeBytes;
    this.#holes = new HoleMap(image);
    this.plan = new CopyPlan({
      blocks: Math.ceil(image.sizeBytes / blockBytes),
      blockBytes,
      makeTracker,
      writes,
      empty,
    });
  }

  // --- what the guest does ----------------------------------------------------------------------

  /** Of the guest, under way now. */
  get requests(): number {
    return this.#requests;
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#counted(this.#options.image.read(offset, length));
  }

  readInto(offset: number, buffer: Buffer): Promise<void> {
    return this.#counted(this.#options.image.readInto(offset, buffer));
  }

  write(offset: number, data: Buffer): Promise<void> {
    const { image, frames } = this.#options;
    return this.#counted(
      this.#change({
        offset,
        length: data.length,
        isData: true,
        apply: () => image.write(offset, data),
        mirror: (from, to) => {
          frames.data(from, data.subarray(from - offset, to - offset));
        },
      }),
    );
  }

  writeZeroes(offset: number, length: number, options: { mayPunch: boolean }): Promise<void> {
    const { image, frames } = this.#options;
    return this.#counted(
      this.#change({
        offset,
        length,
        isData: false,
        apply: () => image.writeZeroes(offset, length, options),
        mirror: (from, to) => {
          frames.zeros(from, to - from, options.mayPunch ? "trim" : "zero");
        },
      }),
    );
  }

  /** While the disk is tracked, what is trimmed becomes zeros: both images must read the same. */
  trim(offset: number, length: number): Promise<void> {
    if (this.#gate === "passing") return this.#options.image.trim(offset, length);
    return this.writeZeroes(offset, length, { mayPunch: true });
  }

  async flush(): Promise<void> {
    if (this.#storesNothing) return;
    const flushed = this.#counted(this.#options.image.flush());
    await flushed.catch(() => this.#options.onFlushFailed());
    await flushed;
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    return this.#options.image.extents(offset, length);
  }

  // --- what the migration does ------------------------------------------------------------------

  /** From here on every write counts. The guest must not have written past this object before. */
  startTracking(): void {
    this.#gate = "tracked";
    // Otherwise the first round tells of every byte; the dest's image need not be a new one.
    if (this.#options.empty) this.#options.frames.zeros(0, this.sizeBytes, "trim");
  }

  /** The guest stands still and must not write. */
  hold(): void {
    this.#gate = "held";
  }

  /** The migration is over, or given up: the guest may write, and nobody keeps account of it. */
  release(): void {
    this.#gate = "passing";
  }

  /**
   * The image stores nothing reliably any more, and the guest stands still with the request that
   * told it: QEMU shall get by without flushes, which it must before it lets go of this object.
   */
  giveUpFlushes(): void {
    this.#storesNothing = true;
  }

  /** Copies the next blocks of this round; false when the round is over. */
  async copyNext(): Promise<boolean> {
    const { plan } = this;
    if (plan.round === 1 && !plan.roundOver) await this.#skipHole();
    const { blockBytes } = this.#options;
    const run = plan.next(Math.max(1, WINDOW_BYTES / blockBytes));
    if (run === null) return !plan.roundOver;
    await this.#copy(run);
    return true;
  }

  /** Reads one unit again whose hash is open and which has settled; false when there is none. */
  async settleNext(settledMs = SETTLED_MS): Promise<boolean> {
    const { hashes, blockBytes, clock } = this.#options;
    const nowMs = clock.nowMs();
    const unitsPerBlock = blockBytes / hashes.unitBytes;
    const blockOf = (unit: number): number => Math.floor(unit / unitsPerBlock);
    const isReady = (open: number): boolean => {
      const block = blockOf(open);
      return this.#isAtDest(block) && this.plan.idleMs(block, nowMs) >= settledMs;
    };
    const unit = hashes.nextOpen(isReady, settledMs === 0 ? hashes.units : LOOK_UNITS_MAX);
    if (unit === null) return false;
    const [offset, length] = [unit * hashes.unitBytes, hashes.lengthOf(unit)];
    const hold = await this.#ranges.acquire(offset, length);
    try {
      const content = await this.#read(offset, length);
      // Elsewhere the hash would pass for what the dest has, and what differs would not be copied.
      const known = hashes.isOpen(unit) && this.#isAtDest(blockOf(unit));
      if (known) hashes.set(unit, hashes.hash(content));
      this.#reuse(content);
    } finally {
      this.#ranges.release(hold);
    }
    return true;
  }

  // ------------------------------------------------------------------------------------------------

  async #counted<T>(request: Promise<T>): Promise<T> {
    this.#requests++;
    try {
      return await request;
    } catch (error) {
      if (this.#gate !== "passing") this.#options.onImageFailed(error);
      throw error;
    } finally {
      this.#requests--;
    }
  }

  async #change(change: Change): Promise<void> {
    if (this.#gate === "passing") return change.apply();
    const { offset, length } = change;
    this.#refuseWhileHeld(offset);
    const waiting = this.#ranges.acquire(offset, length);
    const hold = waiting instanceof Promise ? await waiting : waiting;
    try {
      this.#refuseWhileHeld(offset);
      await this.#changeInTurn(change);
      // It was under way when the guest was held: the last round may not have seen it.
      if (this.#isHeld) this.#options.onWrittenWhileHeld(offset);
    } finally {
      this.#ranges.release(hold);
    }
  }

  async #changeInTurn(change: Change): Promise<void> {
    const { offset, length } = change;
    const { blockBytes } = this.#options;
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((offset + length - 1) / blockBytes);
    const mirrored = this.#fates(change, first, last);
    try {
      await change.apply();
    } catch (error) {
      // Nobody knows what the image holds there now; a copy will tell.
      for (let block = first; block <= last; block++) this.plan.mark(block);
      throw error;
    }
    if (mirrored.length === 0) return;
    // Of those that wait the first may fill the link again.
    const { behind, caughtUp, isAway } = this.#options;
    while (this.throttle && behind() && !isAway()) await caughtUp();
    if (this.#options.behind()) {
      for (const { from, to } of mirrored) this.#mark(from, to);
      return;
    }
    for (const { from, to } of mirrored) this.#mirror(change, from, to);
  }

  /** The parts of a change that are to be mirrored, neighbours joined. */
  #fates(change: Change, first: number, last: number): { from: number; to: number }[] {
    const { offset, length, isData } = change;
    const { blockBytes, clock } = this.#options;
    const nowMs = clock.nowMs();
    const mirrored: { from: number; to: number }[] = [];
    for (let block = first; block <= last; block++) {
      const from = Math.max(offset, block * blockBytes);
      const to = Math.min(offset + length, (block + 1) * blockBytes);
      const fate = this.plan.written(block, isData ? to - from : 0, nowMs);
      if (fate === "held") this.counters.savedBytes += to - from;
      if (fate !== "mirror") continue;
      const previous = mirrored.at(-1);
      if (previous?.to === from) previous.to = to;
      else mirrored.push({ from, to });
    }
    return mirrored;
  }

  #mirror(change: Change, from: number, to: number): void {
    change.mirror(from, to);
    this.counters.mirroredBytes += to - from;
    const { hashes } = this.#options;
    const last = Math.floor((to - 1) / hashes.unitBytes);
    for (let unit = Math.floor(from / hashes.unitBytes); unit <= last; unit++) hashes.open(unit);
  }

  #mark(from: number, to: number): void {
    const { blockBytes } = this.#options;
    const last = Math.floor((to - 1) / blockBytes);
    for (let block = Math.floor(from / blockBytes); block <= last; block++) this.plan.mark(block);
  }

  get #isHeld(): boolean {
    return this.#gate === "held";
  }

  #refuseWhileHeld(offset: number): void {
    if (!this.#isHeld) return;
    this.#options.onWrittenWhileHeld(offset);
    const detail = { code: "block-io", errno: "EIO", operation: "write", offset } as const;
    throw new BlockError("the guest stands still: it must not write", detail);
  }

  /** Passes over a hole at the cursor. The dest's image need not be new: it is told of the hole. */
  async #skipHole(): Promise<void> {
    const { blockBytes } = this.#options;
    const first = this.plan.cursor;
    const offset = first * blockBytes;
    const reach = await this.#holes.reach(offset);
    if (reach < blockBytes && offset + reach < this.sizeBytes) return;
    const hold = await this.#ranges.acquire(offset, reach);
    try {
      // Another copy may have moved it on.
      if (this.plan.cursor === first) await this.#skipHeldHole(offset, reach);
    } finally {
      this.#ranges.release(hold);
    }
  }

  /** Nobody writes to the range: what is a hole now stays one until the cursor is past it. */
  async #skipHeldHole(offset: number, reach: number): Promise<void> {
    const { image, hashes, frames, blockBytes } = this.#options;
    const first = offset / blockBytes;
    const [extent] = await image.extents(offset, reach);
    if (extent?.kind !== "zero" || this.plan.cursor !== first) return;
    const end = offset + extent.length;
    const isEndOfDisk = end === this.sizeBytes;
    const count = isEndOfDisk ? this.plan.blocks - first : Math.floor(end / blockBytes) - first;
    if (count <= 0) return;
    const length = Math.min(this.sizeBytes, (first + count) * blockBytes) - offset;
    frames.zeros(offset, length, "trim");
    hashes.setZero(offset / hashes.unitBytes, Math.ceil(length / hashes.unitBytes));
    this.counters.zeroBytes += length;
    this.plan.skip(count);
  }

  /**
   * The dest has, or is being sent, all that was written to the block. A copy that waits for its
   * turn has sent nothing yet, although the plan's cursor is past it.
   */
  #isAtDest(block: number): boolean {
    for (const { first, count } of this.#copying) {
      if (block >= first && block < first + count) return false;
    }
    return this.plan.isSent(block);
  }

  async #copy(run: BlockRun): Promise<void> {
    const { first, count } = run;
    const { blockBytes } = this.#options;
    this.#copying.add(run);
    const offset = first * blockBytes;
    const length = Math.min(this.sizeBytes, (first + count) * blockBytes) - offset;
    const hold = await this.#ranges.acquire(offset, length);
    try {
      const content = await this.#read(offset, length);
      this.#send(offset, content);
      this.#reuse(content);
    } catch (error) {
      for (let block = first; block < first + count; block++) this.plan.mark(block);
      throw error;
    } finally {
      this.#copying.delete(run);
      this.#ranges.release(hold);
    }
  }

  #send(offset: number, content: Buffer): void {
    const { hashes } = this.#options;
    for (let start = 0; start < content.length; start += hashes.unitBytes) {
      const unit = (offset + start) / hashes.unitBytes;
      this.#sendUnit(unit, content.subarray(start, start + hashes.lengthOf(unit)));
    }
  }

  #sendUnit(unit: number, content: Buffer): void {
    const { hashes, frames } = this.#options;
    const { counters } = this;
    const offset = unit * hashes.unitBytes;
    const hash = hashes.hash(content);
    // In the first round nothing is known of the dest's image, which may be a device.
    if (this.plan.round > 1 && hashes.holds(unit, hash)) {
      counters.unchangedBytes += content.length;
      return;
    }
    hashes.set(unit, hash);
    if (isZero(content)) {
      frames.zeros(offset, content.length, "trim");
      counters.zeroBytes += content.length;
      return;
    }
    frames.data(offset, content, { unit: true });
    counters.copiedBytes += content.length;
  }

  async #read(offset: number, length: number): Promise<Buffer> {
    const { image } = this.#options;
    const buffer = this.#buffers.pop() ?? Buffer.allocUnsafeSlow(this.#bufferBytes);
    try {
      const content = buffer.subarray(0, length);
      await image.readInto(offset, content);
      return content;
    } catch (error) {
      this.#reuse(buffer);
      throw error;
    }
  }

  #reuse(content: Buffer): void {
    if (this.#buffers.length >= BUFFERS_MAX) return;
    this.#buffers.push(Buffer.from(content.buffer, content.byteOffset, this.#bufferBytes));
  }

  get #bufferBytes(): number {
    return Math.max(WINDOW_BYTES, this.#options.blockBytes);
  }
}

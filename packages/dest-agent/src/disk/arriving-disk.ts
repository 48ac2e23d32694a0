/**
 * One disk on its way in: extents are written to its image in the order in which they came, the
 * hashes follow, and the image is flushed all along, so that little is left to flush at the stun.
 *
 *   frame ─▶ queue ─▶ image ─▶ hashes: known where a whole unit was written, open elsewhere
 *                       └─▶ flush ─▶ mark (present bitmap)
 *
 * The image is the guest's only when the session says so; until then its mark lies beside it.
 */
import type { DiskHashes } from "@vmferry/agent";
import type { BlockDevice } from "@vmferry/block";
import { Deferred, type Clock } from "@vmferry/core";
import {
  DiskOperation,
  ExtentTable,
  FrameEncoding,
  violation,
  type DiskExtent,
} from "@vmferry/protocol";
import type { ArrivedFrame } from "../bulk/bulk-receiver.ts";
import { Inflater } from "../bulk/inflate-data.ts";
import { diskFailure } from "./disk-failure.ts";
import { RecentUnits } from "./recent-units.ts";

/** Frames that wait here: more of the smallest than the credit allows, so that only a liar gets there. */
const FRAMES_MAX = 2 ** 19;
/**
 * Written since the last flush: more is flushed at once, whatever comes. The stun is far away while so
 * much does, and a flush holds up everybody else who flushes on the same disk.
 */
const FLUSH_BYTES = 128 * 1024 * 1024;
/** Less is flushed as soon as little comes, so that at the stun next to nothing is left to flush. */
const CALM_BYTES_PER_MS = 10_000;
const IDLE_MS = 200;
const MARK_MS = 5000;
/** Hashes made anew in one idle turn, before what has come meanwhile is looked at. */
const SETTLED_PER_TURN_MAX = 64;
/** A unit that was written in part is read again when it was left alone for one to two of these. */
const SETTLED_MS = 400;
/** A large disk with little to do must not keep the event loop. */
const LOOK_UNITS_MAX = 262_144;

/** Keeps account of what of the image is there; `PartialMark` of the block package. */
export interface PresentMark {
  update(update: {
    readonly bitmap: Uint8Array;
    readonly state: "filling" | "whole";
  }): Promise<void>;
}

export interface ArrivingDiskOptions {
  readonly id: string;
  readonly image: BlockDevice;
  readonly mark: PresentMark;
  readonly hashes: DiskHashes;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  readonly clock: Clock;
  readonly onFailed: (error: unknown) => void;
}

export class ArrivingDisk {
  readonly id: string;
  #receivedBytes = 0;
  readonly #options: ArrivingDiskOptions;
  readonly #inflater = new Inflater();
  readonly #table = new ExtentTable();
  readonly #queue: ArrivedFrame[] = [];
  readonly #present: Uint8Array;
  readonly #recent: RecentUnits;
  readonly #ended = new Deferred<string>();
  #working = false;
  #ending = false;
  #stopped = false;
  #unflushedBytes = 0;
  #flushing: Promise<void> | null = null;
  #markedMs: number;
  #intervalMs: number;
  #intervalBytes = 0;
  #cancelIdle: () => void = () => undefined;

  constructor(options: ArrivingDiskOptions) {
    const { hashes, clock } = options;
    this.#options = options;
    this.id = options.id;
    this.#present = new Uint8Array(Math.ceil(hashes.units / 8));
    this.#recent = new RecentUnits(hashes.units);
    this.#markedMs = clock.nowMs();
    this.#intervalMs = clock.nowMs();
    this.#idleSoon();
  }

  /** Of DATA extents. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  arrived(arrived: ArrivedFrame): void {
    if (this.#stopped) return;
    if (this.#ending) throw violation("frame of a disk after the end of the disks");
    if (this.#queue.push(arrived) > FRAMES_MAX) throw violation("too many frames at once");
    this.#wake();
  }

  /** No frame follows. Resolves with the digest when everything is on the disk for good. */
  end(): Promise<string> {
    this.#ending = true;
    this.#wake();
    return this.#ended.promise;
  }

  /** Nothing is written any more once this resolves. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelIdle();
    this.#queue.length = 0;
    this.#ended.reject(new Error("the disk does not arrive any more"));
    while (this.#working) await new Promise((resolve) => setImmediate(resolve));
    await this.#flushing?.catch(() => undefined);
  }

  #wake(): void {
    if (this.#working || this.#stopped) return;
    this.#working = true;
    void this.#work();
  }

  async #work(): Promise<void> {
    try {
      for (;;) {
        const arrived = this.#queue.shift();
        if (arrived === undefined || this.#stopped) break;
        await this.#write(arrived);
        arrived.done();
        this.#flushSome();
      }
      if (this.#ending && !this.#ended.settled) await this.#finish();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#working = false;
    }
    if (this.#queue.length > 0) this.#wake();
  }

  async #write({ header, frame }: ArrivedFrame): Promise<void> {
    const { hashes } = this.#options;
    this.#table.open(frame, header, hashes.sizeBytes);
    const { data, start } = this.#dataOf(frame, header.encoding);
    let at = start;
    let writes: Promise<void>[] = [];
    for (let i = 0; i < this.#table.count; i++) {
      const extent = this.#table.extent(i);
      const isData = extent.operation === DiskOperation.DATA;
      const bytes = isData ? data.subarray(at, at + extent.length) : null;
      at += bytes?.length ?? 0;
      writes.push(this.#apply(extent, bytes));
      // Extents that overlap have an order.
      if (this.#table.disjoint) continue;
      await allDone(writes);
      writes = [];
    }
    await allDone(writes);
  }

  #dataOf(frame: Buffer, encoding: FrameEncoding): { data: Buffer; start: number } {
    const start = this.#table.dataOffset;
    if (encoding === FrameEncoding.RAW) return { data: frame, start };
    if (!this.#options.compression) throw violation("zstd without its feature");
    const data = this.#inflater.inflate(frame.subarray(start), this.#table.dataBytes);
    return { data, start: 0 };
  }

  async #apply({ operation, offset, length }: DiskExtent, data: Buffer | null): Promise<void> {
    const { image } = this.#options;
    if (data === null) {
      await image.writeZeroes(offset, length, { mayPunch: operation === DiskOperation.TRIM });
    } else {
      await image.write(offset, data);
      this.#receivedBytes += length;
      this.#unflushedBytes += length;
    }
    this.#account(offset, length, data);
  }

  /** Hashes of units that were written as a whole are known, those of others are open. */
  #account(offset: number, length: number, data: Buffer | null): void {
    const { hashes } = this.#options;
    const { unitBytes } = hashes;
    const last = Math.floor((offset + length - 1) / unitBytes);
    for (let unit = Math.floor(offset / unitBytes); unit <= last; unit++) {
      const start = unit * unitBytes - offset;
      const whole = start >= 0 && start + hashes.lengthOf(unit) <= length;
      if (!whole) {
        hashes.open(unit);
        this.#recent.add(unit);
        continue;
      }
      if (data === null) hashes.setZero(unit, 1);
      else hashes.set(unit, hashes.hash(data.subarray(start, start + hashes.lengthOf(unit))));
      this.#present[unit >>> 3]! |= 1 << (unit & 7);
    }
  }

  /** Everything has come: the rest of the hashes, the flush, the mark. */
  async #finish(): Promise<void> {
    const { hashes } = this.#options;
    const flushed = this.#flush();
    // Until it is awaited below, a failure of it is nobody's.
    flushed.catch(() => undefined);
    while (!this.#stopped && (await this.#settleNext(() => true)));
    await flushed;
    if (this.#stopped) return;
    const digest = hashes.digest();
    this.#present.fill(0xff);
    // Bits behind the last unit are zero.
    for (let bit = hashes.units; bit < this.#present.length * 8; bit++) {
      this.#present[bit >>> 3]! &= ~(1 << (bit & 7));
    }
    await this.#options.mark.update({ bitmap: this.#present, state: "whole" });
    this.#ended.resolve(digest);
  }

  /** Makes one open hash anew; false when there is none that `ready` lets through. */
  async #settleNext(ready: (unit: number) => boolean, lookMax?: number): Promise<boolean> {
    const { hashes, image } = this.#options;
    const unit = hashes.nextOpen(ready, lookMax);
    if (unit === null) return false;
    const content = await image.read(unit * hashes.unitBytes, hashes.lengthOf(unit));
    hashes.set(unit, hashes.hash(content));
    this.#present[unit >>> 3]! |= 1 << (unit & 7);
    return true;
  }

  #flushSome(): void {
    if (this.#unflushedBytes < FLUSH_BYTES || this.#flushing !== null) return;
    this.#flush().catch((error: unknown) => {
      this.#fail(error);
    });
  }

  /** Once what was written before the call is durable; the mark then says so now and then. */
  async #flush(): Promise<void> {
    await this.#flushing?.catch(() => undefined);
    const { image, mark, clock } = this.#options;
    this.#unflushedBytes = 0;
    const bitmap = Uint8Array.from(this.#present);
    const flush = async (): Promise<void> => {
      await image.flush();
      if (this.#ending || clock.nowMs() - this.#markedMs < MARK_MS) return;
      this.#markedMs = clock.nowMs();
      await mark.update({ bitmap, state: "filling" });
    };
    this.#flushing = flush();
    try {
      await this.#flushing;
    } finally {
      this.#flushing = null;
    }
  }

  /** While nothing comes: flushes, and hashes that are open. */
  #idleSoon(): void {
    this.#cancelIdle = this.#options.clock.after(IDLE_MS, () => {
      if (this.#stopped || this.#ending) return;
      this.#idleSoon();
      const nowMs = this.#options.clock.nowMs();
      if (nowMs - this.#intervalMs >= SETTLED_MS) this.#endInterval(nowMs);
      if (!this.#working) void this.#settleSome();
    });
  }

  #endInterval(nowMs: number): void {
    const bytesPerMs = (this.#receivedBytes - this.#intervalBytes) / (nowMs - this.#intervalMs);
    this.#intervalMs = nowMs;
    this.#intervalBytes = this.#receivedBytes;
    this.#recent.endInterval();
    const isCalm = bytesPerMs < CALM_BYTES_PER_MS;
    if (!isCalm || this.#unflushedBytes === 0 || this.#flushing !== null) return;
    this.#flush().catch((error: unknown) => {
      this.#fail(error);
    });
  }

  async #settleSome(): Promise<void> {
    this.#working = true;
    try {
      let settled = 0;
      while (settled < SETTLED_PER_TURN_MAX && this.#queue.length === 0) {
        if (!(await this.#settleNext((unit) => !this.#recent.has(unit), LOOK_UNITS_MAX))) break;
        settled++;
      }
      if (settled === 0) await this.#options.hashes.refresh();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#working = false;
    }
    if (this.#queue.length > 0 || this.#ending) this.#wake();
  }

  #fail(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#cancelIdle();
    this.#queue.length = 0;
    this.#ended.reject(error);
    this.#options.onFailed(diskFailure(this.id, error));
  }
}

/** Rejects as the first of them does, but not before all have come to their end. */
async function allDone(writes: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(writes)) {
    if (outcome.status === "rejected") throw outcome.reason;
  }
}

/**
 * Stands before the BulkSender: while the link has enough to do, frames of pages and of disks are
 * compressed in the thread pool; when it would soon stand still, they go as they are. So a link that
 * is slower than the processors carries compressed frames alone, one that is faster none, and all
 * between as many as the processors have time for. Everything else waits its turn behind what is at
 * work, so that the order stays. At most `JOBS_MAX` frames are at work here, mirrored writes aside;
 * `ready` tells whoever fills the link to wait.
 */
import { availableParallelism } from "node:os";
import { BufferPool, zstdInto } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import type { BulkSender, OutboundEntry, OutboundFrame } from "./bulk-sender.ts";

const JOBS_MAX = 6;
/** Data of a frame that is worth a job. */
const DATA_BYTES_MIN = 2048;
/** Mirrored writes do not ask whether there is room: when so much is at work, they go as they are. */
const WAITING_MAX = 64;
/** A frame that does not become this much smaller goes as it is. */
const GAIN_SHARE_MIN = 0.05;
/** Of buffers kept for the next ones: half of those for as much as may be under way. */
const POOL_BYTES_MAX = 16 * 1024 * 1024;
/** What a byte becomes is judged by the last frames, this much of them at most. */
const SHARE_BYTES_MAX = 64 * 1024 * 1024;

export interface FrameCompressorOptions {
  readonly out: BulkSender;
  /** Both agents have zstd. */
  readonly enabled: boolean;
  /** The guest has requests to its disks under way, which go through this process. */
  readonly guestWaits: () => boolean;
  /** There is room again. */
  readonly onReady: () => void;
  readonly onFailed: (error: unknown) => void;
}

interface Waiting {
  /** Null while it is being compressed. */
  entry: OutboundEntry | null;
  /** Of the frame as it came. */
  readonly bytes: number;
}

interface Job {
  readonly frame: OutboundFrame;
  readonly place: Waiting;
}

export class FrameCompressor {
  readonly #options: FrameCompressorOptions;
  readonly #waiting: Waiting[] = [];
  readonly #jobs: Job[] = [];
  readonly #spareCores = spareCores();
  /** What is being compressed becomes smaller in one of these, one for each that runs. */
  readonly #places: Buffer[] = [];
  readonly #pool = new BufferPool(POOL_BYTES_MAX);
  #running = 0;
  /** Of the last frames: as they came, and as they went out. */
  #cameBytes = 0;
  #wentBytes = 0;
  #waitingBytes = 0;
  #stopped = false;
  #compressesPages = true;

  constructor(options: FrameCompressorOptions) {
    this.#options = options;
  }

  /** More may be read from QEMU. */
  get ready(): boolean {
    return this.#options.out.idle && this.#waiting.length < JOBS_MAX;
  }

  /** What waits here and in the sender's queue for the link. */
  get queuedBytes(): number {
    return this.#options.out.queuedBytes + this.#waitingBytes;
  }

  /** Everything that the dest has not acknowledged, frames at work here included. */
  get pendingBytes(): number {
    return this.#options.out.pendingBytes + this.#waitingBytes;
  }

  /** What a byte of the guest becomes on the wire at present, at most 1. */
  get wireShare(): number {
    return this.#cameBytes === 0 ? 1 : this.#wentBytes / this.#cameBytes;
  }

  enqueue(entry: OutboundEntry): void {
    if ("view" in entry && this.#isWorthIt(entry)) {
      this.#compress(entry);
      return;
    }
    const bytes = "view" in entry ? entry.view.length : 0;
    if ("view" in entry && dataBytesOf(entry) > 0) this.#count(bytes, bytes);
    if (this.#waiting.length === 0) this.#options.out.enqueue(entry);
    else this.#wait(entry, bytes);
  }

  /** Pages that come now may be compressed, or go out as they are: processors are needed for something else. */
  compressPages(isAllowed: boolean): void {
    this.#compressesPages = isAllowed;
  }

  stop(): void {
    this.#stopped = true;
    this.#jobs.length = 0;
    this.#waiting.length = 0;
  }

  #isWorthIt(frame: OutboundFrame): boolean {
    const { enabled, out } = this.#options;
    const mayBe = enabled && (this.#compressesPages || frame.kind !== FrameKind.PAGES);
    if (!mayBe || this.#waiting.length >= WAITING_MAX) return false;
    return dataBytesOf(frame) >= DATA_BYTES_MIN && out.isBusy;
  }

  #compress(frame: OutboundFrame): void {
    const place = this.#wait(null, frame.view.length);
    this.#jobs.push({ frame, place });
    this.#startJobs();
  }

  /** A core more than is spare, unless the guest waits for something just now: it comes first. */
  #startJobs(): void {
    const runningMax = this.#spareCores + (this.#options.guestWaits() ? 0 : 1);
    while (this.#running < runningMax) {
      const job = this.#jobs.shift();
      if (job === undefined) return;
      this.#running++;
      void this.#run(job);
    }
  }

  async #run(job: Job): Promise<void> {
    try {
      await this.#makeSmaller(job);
      if (this.#stopped) return;
      this.#startJobs();
      this.#drain();
    } catch (failure) {
      this.#options.onFailed(failure);
    }
  }

  async #makeSmaller({ frame, place }: Job): Promise<void> {
    const room = this.#places.pop() ?? Buffer.allocUnsafeSlow(limits.FRAME_BYTES_MAX);
    try {
      const head = frame.view.length - dataBytesOf(frame);
      const data = frame.view.subarray(head);
      const enough = room.subarray(0, Math.floor(data.length * (1 - GAIN_SHARE_MIN)));
      const bytes = await zstdInto(enough, data);
      if (this.#stopped) return;
      place.entry = bytes === null ? frame : this.#smaller(frame, head, room.subarray(0, bytes));
      this.#count(frame.view.length, place.entry.view.length);
    } finally {
      this.#places.push(room);
      this.#running--;
    }
  }

  /** The frame with its data compressed; its own buffer is free again. */
  #smaller(frame: OutboundFrame, head: number, compressed: Buffer): OutboundFrame {
    const view = this.#pool.take(head + compressed.length);
    frame.view.copy(view, 0, 0, head);
    compressed.copy(view, head);
    frame.flushed();
    let kept: Buffer | null = view;
    const flushed = (): void => {
      if (kept !== null) this.#pool.give(kept);
      kept = null;
    };
    return { ...frame, view, encoding: FrameEncoding.ZSTD, flushed };
  }

  #count(cameBytes: number, wentBytes: number): void {
    this.#cameBytes += cameBytes;
    this.#wentBytes += wentBytes;
    if (this.#cameBytes < SHARE_BYTES_MAX) return;
    this.#cameBytes /= 2;
    this.#wentBytes /= 2;
  }

  #wait(entry: OutboundEntry | null, bytes: number): Waiting {
    const place = { entry, bytes };
    this.#waiting.push(place);
    this.#waitingBytes += bytes;
    return place;
  }

  #drain(): void {
    while (this.#waiting.length > 0) {
      const { entry, bytes } = this.#waiting[0]!;
      if (entry === null) return;
      this.#waiting.shift();
      this.#waitingBytes -= bytes;
      this.#options.out.enqueue(entry);
    }
    if (this.ready) this.#options.onReady();
  }
}

/** Of the data behind the table of runs or extents; 0 for a kind that is never compressed. */
function dataBytesOf({ view, kind, runs }: OutboundFrame): number {
  const bytes = view.length - limits.FRAME_HEADER_BYTES;
  if (kind === FrameKind.PAGES) return bytes - runs * limits.RUN_BYTES;
  if (kind === FrameKind.DISK) return bytes - runs * limits.EXTENT_BYTES;
  return 0;
}

/** One core is busy with everything else. */
function spareCores(): number {
  return Math.max(1, availableParallelism() - 1);
}

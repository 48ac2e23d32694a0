/**
 * The whole path of one disk without QEMU and without sockets: a guest writes, the source copies and
 * mirrors, frames cross a link that is slow when it likes, the dest writes them to its image. Who
 * goes on next is chance all along.
 */
import { constants, zstdCompressSync } from "node:zlib";
import { Deferred } from "@vmferry/core";
import { FrameEncoding, limits, openFrame, sealFrame } from "@vmferry/protocol";
import { ManualClock } from "../../packages/agent/src/events/manual-clock.ts";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import { ArrivingDisk } from "../../packages/dest-agent/src/disk/arriving-disk.ts";
import { BitmapTracker } from "../../packages/source-agent/src/disk/bitmap-tracker.ts";
import { BloomTracker } from "../../packages/source-agent/src/disk/bloom-tracker.ts";
import type { DirtyTracker } from "../../packages/source-agent/src/disk/dirty-tracker.ts";
import { DiskFrames } from "../../packages/source-agent/src/disk/disk-frames.ts";
import { MirroredDisk } from "../../packages/source-agent/src/disk/mirrored-disk.ts";
import type { OutboundFrame } from "../../packages/source-agent/src/transport/bulk-sender.ts";
import { Disorder } from "./disorder.ts";
import { DisorderlyDevice } from "./disorderly-device.ts";
import { GuestOfDisk, type GuestRequest } from "./guest-of-disk.ts";

const HASH_SEED = "0123456789abcdef";
const COPIES_MAX = 3;
const REQUESTS_MAX = 6;
/** Turns in which nothing at all went on. */
const STUCK_TURNS = 1000;
const { FRAME_HEADER_BYTES, EXTENT_BYTES } = limits;

export interface DiskPathPlan {
  /** Of all that is left to chance. */
  readonly salt: number;
  readonly sizeBytes: number;
  readonly unitBytes: number;
  readonly blockBytes: number;
  readonly tracker: "bitmap" | "bloom" | "wrong-at-times";
  readonly writes: "mirror" | "iterate";
  readonly requests: readonly GuestRequest[];
  /** Of the source's image. */
  readonly failureShare: number;
  /** Frames that wait for the link before it is behind. */
  readonly framesMax: number;
  /** The dest's image is a device that holds whatever it held before. */
  readonly destIsUsed: boolean;
  readonly heldMax: number;
  /** The source's image is an empty spool, and all of the disk is written through the source. */
  readonly spooled: boolean;
}

export class DiskPathRun {
  readonly source: DisorderlyDevice;
  readonly dest: DisorderlyDevice;
  readonly disk: MirroredDisk;
  readonly guest: GuestOfDisk;
  sourceDigest = "";
  destDigest = "";
  readonly #plan: DiskPathPlan;
  readonly #disorder: Disorder;
  readonly #clock = new ManualClock();
  readonly #hashes: DiskHashes;
  readonly #frames: DiskFrames;
  readonly #link: OutboundFrame[] = [];
  readonly #arriving: ArrivingDisk;
  readonly #failed = new Deferred<never>();
  #caughtUp = new Deferred();
  #congested = false;
  #sequence = 0;
  #unacknowledged = 0;
  #issued = 0;
  #copies = 0;
  #settling = 0;

  constructor(plan: DiskPathPlan) {
    this.#plan = plan;
    const { sizeBytes, unitBytes, blockBytes, writes } = plan;
    const disorder = new Disorder(plan.salt);
    this.#disorder = disorder;
    const content = plan.spooled ? Buffer.alloc(sizeBytes) : firstContent(disorder, sizeBytes);
    const destContent = Buffer.alloc(sizeBytes, plan.destIsUsed ? "garbage" : 0);
    this.source = new DisorderlyDevice(disorder, content, { sparse: true });
    this.source.failureShare = plan.failureShare;
    this.dest = new DisorderlyDevice(disorder, destContent, { sparse: !plan.destIsUsed });
    const geometry = { sizeBytes, unitBytes, seedHex: HASH_SEED };
    this.#hashes = new DiskHashes(geometry);
    const enqueue = (entry: unknown): void => {
      this.#link.push(entry as OutboundFrame);
    };
    this.#frames = new DiskFrames(
      { enqueue },
      {
        disk: 0,
        onFailed: (error) => {
          throw error;
        },
      },
    );
    this.disk = new MirroredDisk({
      image: this.source,
      frames: this.#frames,
      blockBytes,
      hashes: this.#hashes,
      makeTracker: () => trackerFor(plan),
      writes,
      empty: plan.spooled,
      clock: this.#clock,
      behind: () => this.#behind,
      caughtUp: () => this.#caughtUp.promise,
      isAway: () => false,
      onFlushFailed: () => Promise.resolve(),
      onImageFailed: () => undefined,
      onWrittenWhileHeld: () => {
        this.#failed.reject(new Error("written while held"));
      },
    });
    this.guest = new GuestOfDisk(this.disk, content);
    this.#arriving = new ArrivingDisk({
      id: "disk0",
      image: this.dest,
      mark: { update: () => disorder.turn() },
      hashes: new DiskHashes(geometry),
      compression: true,
      clock: this.#clock,
      onFailed: (error) => {
        this.#failed.reject(error);
      },
    });
  }

  /** Until the dest has everything. Rejects when anything fails, or nothing goes on any more. */
  async finish(): Promise<void> {
    const { plan } = this.disk;
    this.disk.startTracking();
    plan.setHeldMax(this.#plan.heldMax, 0);
    await this.#until(() => this.#issued === this.#plan.requests.length && plan.round > 1, {
      free: true,
    });
    this.disk.throttle = false;
    this.#congested = false;
    await this.#until(() => this.guest.underWay === 0);
    this.disk.hold();
    plan.startLastRound();
    await this.#until(() => plan.roundOver && this.#copies === 0 && this.#settling === 0);
    await this.#untilDone(this.#settleAll());
    this.#frames.flush();
    this.sourceDigest = this.#hashes.digest();
    await this.#until(() => this.#link.length === 0);
    const digest = this.#arriving.end();
    await this.#untilDone(digest);
    this.destDigest = await digest;
  }

  stop(): void {
    this.#frames.stop();
    void this.#arriving.stop();
  }

  get unacknowledgedFrames(): number {
    return this.#unacknowledged;
  }

  /** The first byte of the image that the guest did not leave there, or null. */
  get firstWrong(): number | null {
    return this.guest.firstWrong(this.source.content, { offset: 0, length: this.disk.sizeBytes });
  }

  async #settleAll(): Promise<void> {
    const worker = async (): Promise<void> => {
      while (await this.disk.settleNext(0));
    };
    await Promise.all([worker(), worker()]);
  }

  async #untilDone(work: Promise<unknown>): Promise<void> {
    let isDone = false;
    const done = work.then(() => {
      isDone = true;
    });
    await Promise.race([this.#until(() => isDone), done]);
    await done;
  }

  /** `free`: the guest writes, and whoever controls the migration does this and that. */
  async #until(reached: () => boolean, { free = false } = {}): Promise<void> {
    for (let idleTurns = 0; !reached();) {
      const anything = this.#step(free);
      // Some turns of the loop have much in them: what is sent in one travels in one frame.
      const turn = this.#disorder.chance(0.5) ? loopTurn() : manyMicrotasks();
      await Promise.race([turn, this.#failed.promise]);
      idleTurns = anything ? 0 : idleTurns + 1;
      if (idleTurns > STUCK_TURNS) throw new Error("nothing goes on any more");
    }
  }

  /** One thing that may happen now; true when it brings the run nearer to its end. */
  #step(free: boolean): boolean {
    const disorder = this.#disorder;
    if (free && disorder.chance(0.2)) this.#control();
    if (!this.#behind && this.#caughtUpDue) this.#catchUp();
    const choices: (() => void)[] = [];
    for (let i = 0; i < Math.min(4, disorder.waiting); i++) {
      choices.push(() => {
        disorder.advance();
      });
    }
    if (this.#link.length > 0 && !this.#congested)
      choices.push(() => {
        this.#deliver();
      });
    if (free && this.#mayIssue)
      choices.push(() => {
        this.#issue();
      });
    if (this.#mayCopy)
      choices.push(() => {
        this.#copy();
      });
    if (free && this.#settling < 2)
      choices.push(() => {
        this.#settle();
      });
    if (free && this.#copies === 0 && this.disk.plan.roundOver) {
      choices.push(() => {
        this.disk.plan.startRound();
      });
    }
    if (choices.length === 0) return false;
    choices[disorder.pick(choices.length)]?.();
    return true;
  }

  #control(): void {
    const disorder = this.#disorder;
    const { plan } = this.disk;
    const nowMs = this.#clock.nowMs();
    switch (disorder.pick(6)) {
      case 0:
        plan.setHeldMax(disorder.pick(this.#plan.heldMax + 1), nowMs);
        return;
      case 1:
        plan.releaseCooled(nowMs);
        return;
      case 2:
        this.disk.throttle = disorder.chance(0.5);
        if (this.disk.throttle && disorder.chance(0.2)) plan.writes = "mirror";
        return;
      case 3:
        this.#congested = disorder.chance(0.4);
        return;
      default:
        this.#clock.advance(disorder.pick(700));
    }
  }

  get #behind(): boolean {
    return this.#congested || this.#link.length > this.#plan.framesMax;
  }

  get #caughtUpDue(): boolean {
    return this.#link.length === 0 || this.#disorder.chance(0.1);
  }

  #catchUp(): void {
    this.#caughtUp.resolve();
    this.#caughtUp = new Deferred();
  }

  get #mayIssue(): boolean {
    return this.#issued < this.#plan.requests.length && this.guest.underWay < REQUESTS_MAX;
  }

  #issue(): void {
    const request = this.#plan.requests[this.#issued++];
    if (request !== undefined) this.#watch(this.guest.perform(request));
  }

  get #mayCopy(): boolean {
    return this.#copies < COPIES_MAX && !this.disk.plan.roundOver;
  }

  #copy(): void {
    this.#copies++;
    this.#watch(
      this.disk.copyNext().then(() => {
        this.#copies--;
      }),
    );
  }

  #settle(): void {
    this.#settling++;
    const settled = this.disk.settleNext(this.#disorder.pick(2) * 400);
    this.#watch(
      settled.then(() => {
        this.#settling--;
      }),
    );
  }

  #deliver(): void {
    const entry = this.#link.shift();
    if (entry === undefined) return;
    const { kind, encoding, pass, block, runs } = entry;
    const packed = this.#disorder.chance(0.3) ? compressed(entry) : null;
    const frame = packed ?? Buffer.from(entry.view);
    sealFrame(frame, {
      kind,
      encoding: packed === null ? encoding : FrameEncoding.ZSTD,
      pass,
      sequence: this.#sequence++,
      block,
      runs,
    });
    entry.flushed();
    this.#unacknowledged++;
    const done = (): void => {
      this.#unacknowledged--;
    };
    this.#arriving.arrived({ connection: 0, header: openFrame(frame), frame, done });
  }

  #watch(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      this.#failed.reject(error);
    });
  }
}

/** Null where there is no data. */
function compressed({ view, runs }: OutboundFrame): Buffer | null {
  const head = FRAME_HEADER_BYTES + runs * EXTENT_BYTES;
  if (view.length === head) return null;
  const params = { [constants.ZSTD_c_contentSizeFlag]: 1 };
  return Buffer.concat([view.subarray(0, head), zstdCompressSync(view.subarray(head), { params })]);
}

/** Some of it holes, some of it data, some of it zeros that take space all the same. */
function firstContent(disorder: Disorder, sizeBytes: number): Buffer {
  const content = Buffer.alloc(sizeBytes);
  const pieces = disorder.pick(8);
  for (let i = 0; i < pieces; i++) {
    const start = disorder.pick(sizeBytes);
    content.fill(`first ${i} `, start, Math.min(sizeBytes, start + disorder.pick(sizeBytes / 3)));
  }
  return content;
}

function trackerFor({ tracker, sizeBytes, blockBytes }: DiskPathPlan): DirtyTracker {
  const blocks = Math.ceil(sizeBytes / blockBytes);
  if (tracker === "bitmap") return new BitmapTracker(blocks);
  return tracker === "bloom" ? new BloomTracker(blocks) : new WrongAtTimesTracker();
}

/** As a Bloom filter that is too small: claims one block in four beside those that were marked. */
class WrongAtTimesTracker implements DirtyTracker {
  readonly #marked = new Set<number>();

  get count(): number {
    return this.#marked.size;
  }

  mark(block: number): void {
    if (!this.has(block)) this.#marked.add(block);
  }

  has(block: number): boolean {
    return this.#marked.has(block) || (this.#marked.size > 0 && block % 4 === 1);
  }

  clear(): void {
    this.#marked.clear();
  }
}

/** Enough for a request to come through all of the path. */
async function manyMicrotasks(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

function loopTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

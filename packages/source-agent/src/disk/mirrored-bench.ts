/** For tests: a disk that is mirrored, over an image whose requests wait for the test. */
import { DiskHashes, ManualClock } from "@vmferry/agent";
import { BlockError, type BlockDevice, type Extent } from "@vmferry/block";
import { Deferred } from "@vmferry/core";
import { BitmapTracker } from "./bitmap-tracker.ts";
import type { DiskFrames } from "./disk-frames.ts";
import { MirroredDisk } from "./mirrored-disk.ts";

export const BLOCK_BYTES = 65_536;
export const UNIT_BYTES = 16_384;
const BLOCKS = 6;

/** Requests wait for `go` while `hold` is set; what was asked for is in the log. */
export class StubImage implements BlockDevice {
  readonly sizeBytes = BLOCKS * BLOCK_BYTES;
  readonly content = Buffer.alloc(this.sizeBytes);
  readonly log: string[] = [];
  /** Where the image reads as zeros and takes no space, from here to the end. */
  holeAt = this.sizeBytes;
  hold = false;
  readonly #waiting: { readonly text: string; readonly turn: Deferred }[] = [];

  get waiting(): string[] {
    return this.#waiting.map(({ text }) => text);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  async readInto(offset: number, buffer: Buffer): Promise<void> {
    await this.#turn(`read ${offset}+${buffer.length}`);
    this.content.copy(buffer, 0, offset);
  }

  async write(offset: number, data: Buffer): Promise<void> {
    await this.#turn(`write ${offset}+${data.length}`);
    data.copy(this.content, offset);
  }

  async writeZeroes(offset: number, length: number, options: { mayPunch: boolean }): Promise<void> {
    await this.#turn(`${options.mayPunch ? "punch" : "zero"} ${offset}+${length}`);
    this.content.fill(0, offset, offset + length);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#turn(`trim ${offset}+${length}`);
  }

  async flush(): Promise<void> {
    await this.#turn("flush");
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    await this.#turn(`extents ${offset}+${length}`);
    const hole = Math.max(offset, this.holeAt);
    const extents: Extent[] = [];
    if (hole > offset) extents.push({ offset, length: hole - offset, kind: "data" });
    if (hole < offset + length) {
      extents.push({ offset: hole, length: offset + length - hole, kind: "zero" });
    }
    return extents;
  }

  go(text: string): void {
    this.#take(text).resolve();
  }

  fail(text: string): void {
    const detail = { code: "block-io", errno: "EIO", operation: text, offset: null } as const;
    this.#take(text).reject(new BlockError(`${text} failed`, detail));
  }

  #take(text: string): Deferred {
    const index = this.#waiting.findIndex((request) => request.text === text);
    if (index === -1) throw new Error(`no ${text} waits, but ${this.waiting.join(", ")}`);
    return this.#waiting.splice(index, 1)[0]!.turn;
  }

  async #turn(text: string): Promise<void> {
    this.log.push(text);
    if (!this.hold) return;
    const turn = new Deferred();
    this.#waiting.push({ text, turn });
    await turn.promise;
  }
}

export class MirroredBench {
  readonly clock = new ManualClock();
  readonly image = new StubImage();
  readonly hashes = new DiskHashes({
    sizeBytes: this.image.sizeBytes,
    unitBytes: UNIT_BYTES,
    seedHex: "0123456789abcdef",
  });
  /** `data 0+16384`: what the dest is told, in order. */
  readonly sent: string[] = [];
  /** What the dest makes of it. */
  readonly dest = Buffer.alloc(this.image.sizeBytes, 0xdd);
  readonly imageFailures: unknown[] = [];
  readonly writtenWhileHeld: number[] = [];
  behind = false;
  caughtUp = new Deferred();
  isAway = false;
  /** When a failed flush is written down. */
  flushNoted = Promise.resolve();
  readonly disk: MirroredDisk;

  constructor(options: { readonly writes?: "mirror" | "iterate"; readonly empty?: boolean } = {}) {
    const { writes = "mirror", empty = false } = options;
    const frames: Pick<DiskFrames, "data" | "zeros"> = {
      data: (offset, bytes) => {
        this.sent.push(`data ${offset}+${bytes.length}`);
        bytes.copy(this.dest, offset);
      },
      zeros: (offset, length, operation) => {
        this.sent.push(`${operation} ${offset}+${length}`);
        this.dest.fill(0, offset, offset + length);
      },
    };
    this.disk = new MirroredDisk({
      image: this.image,
      frames: frames as DiskFrames,
      blockBytes: BLOCK_BYTES,
      hashes: this.hashes,
      makeTracker: () => new BitmapTracker(BLOCKS),
      writes,
      empty,
      clock: this.clock,
      behind: () => this.behind,
      caughtUp: () => this.caughtUp.promise,
      isAway: () => this.isAway,
      onFlushFailed: () => this.flushNoted,
      onImageFailed: (error) => {
        this.imageFailures.push(error);
      },
      onWrittenWhileHeld: (offset) => {
        this.writtenWhileHeld.push(offset);
      },
    });
    this.disk.startTracking();
  }

  get isEqual(): boolean {
    return this.dest.equals(this.image.content);
  }

  async copyRound(): Promise<void> {
    while (await this.disk.copyNext());
  }

  /** With the first round over; what came of it is forgotten. */
  static async copied(
    options: { readonly writes?: "mirror" | "iterate" } = {},
  ): Promise<MirroredBench> {
    const bench = new MirroredBench(options);
    await bench.copyRound();
    bench.sent.length = 0;
    bench.image.log.length = 0;
    return bench;
  }

  /** What waits goes on; whoever waits again is in the next lot. */
  catchUp(): void {
    this.caughtUp.resolve();
    this.caughtUp = new Deferred();
  }
}

/** Everything that can go on without the test has gone on. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}

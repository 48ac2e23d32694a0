/**
 * All disks of one migration that are copied. Three stretches:
 *
 *   copy      rounds over every disk, in turn, until what is left fits the downtime budget
 *   follow    memory travels; writes are mirrored on, what was marked is copied now and then
 *   last      the guest stands still: what is left, the digests, and the word that this was all
 *
 * Exit contract: until `hold` the guest writes freely, and `release` brings it back to that at any
 * time. Whatever fails is reported once by `onFailed`.
 */
import { assert, Deferred, failpoint, messageOf, type Clock } from "@vmferry/core";
import type { DiskHashes, Logger } from "@vmferry/agent";
import type { MigrationLimits } from "@vmferry/protocol";
import { diskBudget } from "../policy/disk-budget.ts";
import { StallWatch } from "../policy/stall-watch.ts";
import { SessionError } from "../session/session-error.ts";
import type { Filler, Transport } from "../transport/transport.ts";
import type { DiskFrames } from "./disk-frames.ts";
import type { MirroredDisk } from "./mirrored-disk.ts";

const TICK_MS = 200;
/** Copies that are being read or packed at once, all disks together. */
const COPIES_MAX = 3;
/** Units whose open hash is made anew in one tick: some 10 ms of work. */
const SETTLED_PER_TICK_MAX = 256;
const HELD_BLOCKS_MAX = 4096;
/** Reading and hashing again what was mirrored in part. */
const SETTLE_BYTES_PER_MS = 1_000_000;

/** A disk with what belongs to it. */
export interface MovingDisk {
  readonly id: string;
  readonly blockBytes: number;
  readonly disk: MirroredDisk;
  readonly frames: DiskFrames;
  readonly hashes: DiskHashes;
  /** What it takes to look at every block of the disk once for what is marked. */
  readonly scanMs: number;
  /** All of the disk is in the image that is copied from. */
  readonly filled: () => boolean;
}

export interface DiskTransferOptions {
  readonly disks: readonly MovingDisk[];
  readonly transport: Transport;
  readonly onStall: "throttle" | "cancel" | "stun";
  readonly limits: () => MigrationLimits;
  readonly roundTripMs: () => number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Five times a second, and when a round is over. */
  readonly onProgress: (roundOver: boolean) => void;
  readonly onWarning: (code: "not-converging", detail: string) => void;
  readonly onFailed: (error: unknown) => void;
}

type Stretch = "copy" | "follow" | "last" | "stopped";

export class DiskTransfer implements Filler {
  readonly disks: readonly MovingDisk[];
  /** What is left fits the downtime budget. */
  readonly #through = new Deferred();
  readonly #lastRound = new Deferred();
  readonly #options: DiskTransferOptions;
  readonly #stalls = new StallWatch();
  #stretch: Stretch = "copy";
  #copies = 0;
  #reconnects = 0;
  #turn = 0;
  #settling = false;
  #stallHandled = false;
  #cancelTick: () => void = () => undefined;

  constructor(options: DiskTransferOptions) {
    this.#options = options;
    this.disks = options.disks;
  }

  /** The copy stretch. The guest's writes must pass the disks already. */
  async copy(): Promise<void> {
    this.#options.transport.addFiller(this);
    this.#tick();
    this.fill();
    await this.#through.promise;
    if (this.#stretch === "copy") this.#stretch = "follow";
  }

  /** What would have to travel if the guest were stunned now, in bytes of the disks. */
  get restBytes(): number {
    return this.disks.reduce((sum, moving) => sum + restBytesOf(moving), 0);
  }

  /** What the stun would cost beside that: looking for marks, and hashes that are open. */
  get settleMs(): number {
    const bytes = this.disks.reduce(
      (sum, { hashes }) => sum + hashes.openCount * hashes.unitBytes,
      0,
    );
    const scanMs = this.disks.reduce((sum, moving) => sum + moving.scanMs, 0);
    return bytes / SETTLE_BYTES_PER_MS + scanMs;
  }

  /** Guest writes wait for the link from now on: then it converges. */
  throttle(): void {
    if (this.#stretch === "stopped") return;
    for (const { disk } of this.disks) {
      disk.throttle = true;
      // What is left for a later round does not wait for the link.
      disk.plan.writes = "mirror";
    }
  }

  /** The vCPUs stand still: a write from now on means that they do not. */
  hold(): void {
    // A guest that was given back goes on writing.
    if (this.#stretch === "stopped") return;
    failpoint("gate.close.before");
    for (const { disk } of this.disks) disk.hold();
    failpoint("gate.close.after");
  }

  /** Everything that is left, then the digests of all disks in their order. */
  async finish(): Promise<string[]> {
    this.#assertGoing();
    this.#stretch = "last";
    this.#cancelTick();
    for (const { disk } of this.disks) {
      assert(disk.plan.round > 1 || disk.plan.roundOver, "the dest was told of all of the disk");
      disk.plan.startLastRound();
    }
    this.fill();
    await this.#lastRound.promise;
    for (const { disk } of this.disks) {
      assert(disk.plan.markedBlocks === 0, "no block is marked behind the last round");
    }
    await this.#settleAll();
    this.#assertGoing();
    for (const { frames } of this.disks) frames.flush();
    this.#options.transport.frames.enqueue({ diskEnd: true });
    this.#options.onProgress(true);
    return this.disks.map(({ hashes }) => hashes.digest());
  }

  /** The guest may write again, and the migration has nothing to do with it any more. */
  release(): void {
    this.stop();
    failpoint("gate.open.before");
    for (const { disk } of this.disks) disk.release();
    failpoint("gate.open.after");
  }

  /** Nothing is copied or sent any more. A guest that is held stays held. */
  stop(): void {
    this.#stretch = "stopped";
    this.#cancelTick();
    const stopped = stoppedError();
    this.#through.reject(stopped);
    this.#lastRound.reject(stopped);
    for (const { disk, frames } of this.disks) {
      frames.stop();
      disk.throttle = false;
    }
  }

  fill(): void {
    const { transport } = this.#options;
    while (this.#copies < COPIES_MAX) {
      const moving = this.#nextDisk();
      if (moving === null) return;
      if (!transport.ready) return;
      this.#turn++;
      this.#copies++;
      void this.#copyOne(moving);
    }
  }

  async #copyOne({ id, disk }: MovingDisk): Promise<void> {
    try {
      await disk.copyNext();
    } catch (error) {
      if (this.#stretch !== "stopped") {
        this.#options.onFailed(readError(id, error));
        this.stop();
      }
    }
    this.#copies--;
    if (this.#stretch === "stopped") return;
    try {
      if (this.#copies === 0 && this.#nextDisk() === null) this.#roundOver();
      this.fill();
    } catch (error) {
      this.#options.onFailed(error);
    }
  }

  /** Disks take turns, so that each gets its share of the link. */
  #nextDisk(): MovingDisk | null {
    if (this.#stretch === "stopped") return null;
    for (let i = 0; i < this.disks.length; i++) {
      const moving = this.disks[(this.#turn + i) % this.disks.length]!;
      if (moving.disk.plan.roundOver) continue;
      this.#turn += i;
      return moving;
    }
    return null;
  }

  #roundOver(): void {
    if (this.#stretch === "last") {
      this.#lastRound.resolve();
      return;
    }
    this.#options.onProgress(true);
    if (this.#stretch === "copy") this.#judgeRound();
    else if (this.#stretch === "follow") this.#startRound();
  }

  #judgeRound(): void {
    if (!this.disks.every(({ filled }) => filled())) {
      this.#startRound();
      return;
    }
    if (this.restBytes <= this.#budget.restBytesMax || this.#markedBlocks === 0) {
      this.#through.resolve();
      return;
    }
    if (this.#options.transport.reconnects > this.#reconnects) {
      this.#reconnects = this.#options.transport.reconnects;
      this.#stalls.restart();
    }
    this.#stalls.passBegan(this.restBytes, this.#options.clock.nowMs());
    if (!this.#stallHandled && this.#stalls.stalled(this.#options.clock.nowMs())) {
      this.#stallHandled = true;
      this.#stalled();
    }
    this.#startRound();
  }

  #stalled(): void {
    const detail = "the guest writes to its disks as fast as they travel";
    switch (this.#options.onStall) {
      case "cancel":
        this.#options.onFailed(new SessionError(detail, { code: "not-converging" }));
        return;
      case "stun":
        this.#options.onWarning("not-converging", `${detail}; going on all the same`);
        this.#through.resolve();
        return;
      case "throttle":
        this.#options.onWarning("not-converging", `${detail}; its writes wait for the link now`);
        this.throttle();
    }
  }

  /** In the follow stretch a round begins when the last one is over and something is marked. */
  #startRound(): void {
    for (const { disk } of this.disks) {
      if (disk.plan.roundOver && disk.plan.markedBlocks > 0) disk.plan.startRound();
    }
  }

  get #markedBlocks(): number {
    return this.disks.reduce((sum, { disk }) => sum + disk.plan.markedBlocks, 0);
  }

  get #budget(): { heldBytesMax: number; restBytesMax: number } {
    const { limits, transport, roundTripMs } = this.#options;
    return diskBudget({
      downtimeMsMax: limits().downtimeMsMax,
      linkBytesPerSecond: transport.out.rate.bytesPerSecond,
      roundTripMs: roundTripMs(),
    });
  }

  #tick(): void {
    this.#cancelTick = this.#options.clock.after(TICK_MS, () => {
      if (this.#isEnding) return;
      this.#tick();
      this.#adaptHeat();
      void this.#settleSome();
      this.#options.onProgress(false);
      // A disk that is being filled from elsewhere has rounds in which nothing is to be copied.
      if (this.#copies === 0 && this.#nextDisk() === null) {
        if (this.#stretch === "copy") this.#judgeRound();
        else this.#startRound();
      }
      this.fill();
    });
  }

  /** Held blocks are what the downtime budget can bear, shared evenly between the disks. */
  #adaptHeat(): void {
    const nowMs = this.#options.clock.nowMs();
    const { heldBytesMax } = this.#budget;
    for (const { disk, blockBytes } of this.disks) {
      const blocks = Math.floor(heldBytesMax / this.disks.length / blockBytes);
      disk.plan.releaseCooled(nowMs);
      disk.plan.setHeldMax(Math.min(HELD_BLOCKS_MAX, blocks), nowMs);
    }
  }

  async #settleSome(): Promise<void> {
    if (this.#settling) return;
    this.#settling = true;
    try {
      for (const { disk, hashes } of this.disks) {
        let settled = 0;
        while (settled < SETTLED_PER_TICK_MAX && (await disk.settleNext())) {
          settled++;
          if (this.#isEnding) return;
        }
        await hashes.refresh();
      }
    } catch (error) {
      if (this.#isEnding) return;
      this.#options.logger.warn({ err: error }, "a disk could not be read again for its hash");
    } finally {
      this.#settling = false;
    }
  }

  async #settleAll(): Promise<void> {
    const workers = this.disks.flatMap(({ id, disk }) =>
      Array.from({ length: COPIES_MAX }, async () => {
        try {
          while (this.#stretch === "last" && (await disk.settleNext(0)));
        } catch (error) {
          throw readError(id, error);
        }
      }),
    );
    await Promise.all(workers);
  }

  get #isEnding(): boolean {
    return this.#stretch === "last" || this.#stretch === "stopped";
  }

  #assertGoing(): void {
    if (this.#stretch === "stopped") throw stoppedError();
  }
}

function readError(id: string, cause: unknown): SessionError {
  const detail = `reading disk ${id} failed: ${messageOf(cause)}`;
  return new SessionError(detail, { code: "source-disk-failed" }, { cause });
}

function stoppedError(): SessionError {
  return new SessionError("the disks are not copied any more", { code: "cancelled" });
}

function restBytesOf({ disk, blockBytes }: MovingDisk): number {
  const { plan } = disk;
  return (plan.roundBlocks + plan.markedBlocks + plan.heldBlocks) * blockBytes;
}

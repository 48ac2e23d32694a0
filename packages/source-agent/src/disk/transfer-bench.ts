/** For tests: disks that are copied when the test says so, over a link that is ready when it says so. */
import { ManualClock, type DiskHashes, type Logger } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import type { OutboundEntry } from "../transport/bulk-sender.ts";
import type { Transport } from "../transport/transport.ts";
import { BitmapTracker } from "./bitmap-tracker.ts";
import { CopyPlan } from "./copy-plan.ts";
import type { DiskFrames } from "./disk-frames.ts";
import { DiskTransfer, type DiskTransferOptions, type MovingDisk } from "./disk-transfer.ts";
import type { MirroredDisk } from "./mirrored-disk.ts";

export const BLOCK_BYTES = 1000;

/** What DiskTransfer needs of a disk: a real plan, and copies that end when they are told to. */
export class FakeDisk {
  readonly id: string;
  readonly plan: CopyPlan;
  throttle = false;
  gate: "tracked" | "held" | "passing" = "tracked";
  /** Copies that have begun and not ended. */
  readonly copies: Deferred[] = [];
  /** Copies end by themselves. */
  automatic = true;
  openUnits = 0;
  settleFailure: Error | null = null;
  isFilled = true;
  readonly #log: string[];

  constructor(id: string, blocks: number, log: string[]) {
    this.id = id;
    this.#log = log;
    const makeTracker = (): BitmapTracker => new BitmapTracker(blocks);
    this.plan = new CopyPlan({ blocks, blockBytes: BLOCK_BYTES, makeTracker, writes: "iterate" });
  }

  async copyNext(): Promise<boolean> {
    const run = this.plan.next(1);
    if (run === null) return !this.plan.roundOver;
    this.#log.push(`${this.id}:${run.first}`);
    const copy = new Deferred();
    this.copies.push(copy);
    if (this.automatic) copy.resolve();
    await copy.promise;
    this.copies.splice(this.copies.indexOf(copy), 1);
    return true;
  }

  async settleNext(): Promise<boolean> {
    await Promise.resolve();
    if (this.settleFailure !== null) throw this.settleFailure;
    if (this.openUnits === 0) return false;
    this.openUnits--;
    this.#log.push(`${this.id}:settled`);
    return true;
  }

  hold(): void {
    this.gate = "held";
  }

  release(): void {
    this.gate = "passing";
  }
}

export class TransferBench {
  readonly clock = new ManualClock();
  /** Copies, frames and what is told to the link, in their order. */
  readonly log: string[] = [];
  readonly disks: readonly FakeDisk[];
  readonly transfer: DiskTransfer;
  readonly failures: unknown[] = [];
  readonly warnings: string[] = [];
  roundsOver = 0;
  ready = true;
  bytesPerSecond: number | null = null;
  downtimeMsMax = 300;

  constructor(
    blocksOfDisks: readonly number[],
    onStall: DiskTransferOptions["onStall"] = "throttle",
  ) {
    this.disks = blocksOfDisks.map((blocks, index) => new FakeDisk(`d${index}`, blocks, this.log));
    this.transfer = new DiskTransfer({
      disks: this.disks.map((disk) => this.#moving(disk)),
      transport: this.#transport(),
      onStall,
      limits: () => ({
        bandwidthBytesPerSecond: null,
        downtimeMsMax: this.downtimeMsMax,
        totalMsMax: null,
      }),
      roundTripMs: () => 0,
      clock: this.clock,
      logger: { warn: () => this.log.push("logged") } as unknown as Logger,
      onProgress: (roundOver) => {
        if (roundOver) this.roundsOver++;
      },
      onWarning: (code) => {
        this.warnings.push(code);
      },
      onFailed: (error) => {
        this.failures.push(error);
      },
    });
  }

  get copiesUnderWay(): number {
    return this.disks.reduce((sum, { copies }) => sum + copies.length, 0);
  }

  #moving(disk: FakeDisk): MovingDisk {
    const hashes: Pick<DiskHashes, "openCount" | "unitBytes" | "digest" | "refresh"> = {
      get openCount() {
        return disk.openUnits;
      },
      unitBytes: 500,
      digest: () => `digest of ${disk.id}`,
      refresh: () => Promise.resolve(),
    };
    const frames: Pick<DiskFrames, "flush" | "stop"> = {
      flush: () => this.log.push(`${disk.id}:flush`),
      stop: () => this.log.push(`${disk.id}:stop`),
    };
    return {
      id: disk.id,
      blockBytes: BLOCK_BYTES,
      disk: disk as unknown as MirroredDisk,
      frames: frames as DiskFrames,
      hashes: hashes as DiskHashes,
      scanMs: 0,
      filled: () => disk.isFilled,
    };
  }

  #transport(): Transport {
    const isReady = (): boolean => this.ready;
    const rateNow = (): number | null => this.bytesPerSecond;
    const transport = {
      addFiller: () => undefined,
      get ready() {
        return isReady();
      },
      frames: {
        enqueue: (entry: OutboundEntry) => this.log.push(Object.keys(entry).join()),
      },
      out: {
        rate: {
          get bytesPerSecond() {
            return rateNow();
          },
        },
      },
    };
    return transport as unknown as Transport;
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

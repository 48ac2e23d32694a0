/** Turns counters of the data path into the migration object that users see. */
import { RateEwma, type Clock } from "@vmferry/core";
import type { MigrationPatch, MigrationStore } from "@vmferry/agent";
import { limits, type MigrationDisk, type MigrationResult } from "@vmferry/protocol";
import type { DiskRestProgress } from "../disk/disk-rest.ts";
import type { SourceDisks } from "../disk/source-disks.ts";
import type { RestProgress } from "../postcopy/memory-rest.ts";
import type { RamTransfer } from "../ram/ram-transfer.ts";
import type { Transport } from "../transport/transport.ts";
import type { PrecopyProgress } from "./precopy.ts";

const { PAGE_BYTES } = limits;
const WIRE_HALF_LIFE_MS = 1000;
/** Beyond a day an estimate says nothing. */
const ETA_MS_MAX = 86_400_000;

export interface ProgressReportOptions {
  readonly store: MigrationStore;
  /** Of the migration. */
  readonly id: string;
  readonly clock: Clock;
  /** Of the guest. */
  readonly memoryBytes: number;
}

export class ProgressReport {
  readonly #store: MigrationStore;
  readonly #id: string;
  readonly #clock: Clock;
  readonly #startedMs: number;
  readonly #memoryBytes: number;
  readonly #wire = new RateEwma(WIRE_HALF_LIFE_MS);
  #transport: Transport | null = null;
  #transfer: RamTransfer | null = null;
  #disks: SourceDisks | null = null;
  #sampledBytes = 0;
  /** Of what followed the guest. */
  #restBytes = 0;
  #restReconnects = 0;
  #diskRestBytes = 0;
  #diskRestReconnects = 0;
  #passes = 0;
  #stunnedMs: number | null = null;
  #runningMs: number | null = null;
  #ramDigest: string | null = null;
  #diskDigests: Readonly<Record<string, string>> = {};

  constructor({ store, id, clock, memoryBytes }: ProgressReportOptions) {
    this.#store = store;
    this.#id = id;
    this.#clock = clock;
    this.#memoryBytes = memoryBytes;
    this.#startedMs = clock.nowMs();
  }

  follow(transport: Transport, transfer: RamTransfer, disks: SourceDisks): void {
    this.#transport = transport;
    this.#transfer = transfer;
    this.#disks = disks;
  }

  /** While the disks are copied; all of the memory is to come. */
  diskCopy(roundOver: boolean): void {
    this.#sampleWire();
    const disks = this.#disks!.progress();
    const remainingBytes = restBytesOf(disks) + this.#memoryBytes;
    const patch = {
      disks,
      wire: this.#wireNow(),
      etaMs: etaMs(remainingBytes, null, this.#wire.perSecond),
    };
    if (roundOver) this.#store.pass(this.#id, patch);
    else this.#store.update(this.#id, () => patch);
  }

  precopy(progress: PrecopyProgress): void {
    const { sender } = this.#transfer!;
    const { counters } = sender;
    this.#sampleWire();
    const rate = this.#wire.perSecond;
    const behindQemu = sender.heldBytes + sender.storedBytes + this.#transport!.pendingBytes;
    // What is in the store may be dirty again.
    const remainingBytes = Math.min(sender.totalBytes, progress.dirtyBytes + behindQemu);
    // Once QEMU is drained the guest's changes keep nobody from an end.
    const isDrained = sender.drainStage !== null;
    const dirtyBytesPerSecond = isDrained ? null : progress.dirtyBytesPerSecond;
    const disks = this.#disks!.progress();
    const patch = {
      ram: {
        totalBytes: sender.totalBytes,
        sentBytes: counters.sentPages * PAGE_BYTES,
        remainingBytes,
        heldBytes: sender.heldBytes,
        zeroBytes: counters.zeroPages * PAGE_BYTES,
        unchangedBytes: counters.unchangedPages * PAGE_BYTES,
        pass: counters.pass,
        dirtyBytesPerSecond: progress.dirtyBytesPerSecond,
      },
      disks,
      wire: this.#wireNow(),
      predictedDowntimeMs: rounded(progress.plan.predictedDowntimeMs),
      etaMs: etaMs(remainingBytes + restBytesOf(disks), dirtyBytesPerSecond, rate),
    };
    if (counters.pass === this.#passes) this.#store.update(this.#id, () => patch);
    else this.#store.pass(this.#id, patch);
    this.#passes = counters.pass;
  }

  stunned(atMs: number): void {
    this.#stunnedMs = atMs;
  }

  ramSent(ramDigest: string): void {
    this.#ramDigest = ramDigest;
    const { sender } = this.#transfer!;
    const { counters } = sender;
    this.#store.update(this.#id, ({ ram }) => ({
      ram: {
        ...ram,
        sentBytes: counters.sentPages * PAGE_BYTES,
        zeroBytes: counters.zeroPages * PAGE_BYTES,
        unchangedBytes: counters.unchangedPages * PAGE_BYTES,
        pass: counters.pass,
        remainingBytes: 0,
        heldBytes: 0,
      },
      wire: this.#wireNow(),
    }));
  }

  /** Digests by the disks' ids. */
  disksSent(diskDigests: Readonly<Record<string, string>>): void {
    this.#diskDigests = diskDigests;
    const disks = this.#disks!.progress();
    this.#store.update(this.#id, () => ({ disks }));
  }

  /** The guest runs at the dest, and this much of its memory is still to follow. */
  rest({ remainingBytes, wireBytes, requestedPages, reconnects, fallback }: RestProgress): void {
    this.#wire.sample(wireBytes - this.#restBytes, this.#clock.nowMs());
    this.#restBytes = wireBytes;
    this.#restReconnects = reconnects;
    this.#store.update(this.#id, ({ ram, disks, faults }) => ({
      ram: { ...ram, remainingBytes },
      faults: { ...faults, count: requestedPages },
      fallback,
      wire: this.#wireNow(),
      etaMs: etaMs(remainingBytes + restBytesOf(disks), null, this.#wire.perSecond),
    }));
  }

  /** The guest runs at the dest, and this much of its disks was not served yet. */
  disksFollow(progress: DiskRestProgress): void {
    this.#wire.sample(progress.wireBytes - this.#diskRestBytes, this.#clock.nowMs());
    this.#diskRestBytes = progress.wireBytes;
    this.#diskRestReconnects = progress.reconnects;
    this.#store.update(this.#id, ({ ram, disks: before }) => {
      const disks = withServed(before, progress);
      const remainingBytes = (ram.remainingBytes ?? 0) + restBytesOf(disks);
      return {
        disks,
        wire: this.#wireNow(),
        etaMs: etaMs(remainingBytes, null, this.#wire.perSecond),
      };
    });
  }

  disksServed(progress: DiskRestProgress): void {
    this.disksFollow(asServed(progress));
  }

  /** All of memory has followed. */
  restSent(ramDigest: string | null): void {
    this.#ramDigest = ramDigest;
  }

  /** The dest said that the guest runs there. */
  running(): void {
    this.#runningMs ??= this.#clock.nowMs();
  }

  /** What the object shows at the end: the device state went out after the last page. */
  last(): MigrationPatch {
    return { wire: this.#wireNow() };
  }

  result(): MigrationResult {
    const downtimeMs =
      this.#stunnedMs === null || this.#runningMs === null
        ? null
        : rounded(this.#runningMs - this.#stunnedMs);
    return {
      downtimeMs,
      totalMs: rounded(this.#clock.nowMs() - this.#startedMs),
      wireBytes: this.#wireNow().bytes,
      ramDigest: this.#ramDigest,
      diskDigests: this.#diskDigests,
    };
  }

  #sampleWire(): void {
    const { sentBytes } = this.#transport!.out;
    this.#wire.sample(sentBytes - this.#sampledBytes, this.#clock.nowMs());
    this.#sampledBytes = sentBytes;
  }

  #wireNow(): { bytes: number; bytesPerSecond: number | null; reconnects: number } {
    return {
      bytes: (this.#transport?.out.sentBytes ?? 0) + this.#restBytes + this.#diskRestBytes,
      bytesPerSecond: rounded(this.#wire.perSecond),
      reconnects:
        (this.#transport?.reconnects ?? 0) + this.#restReconnects + this.#diskRestReconnects,
    };
  }
}

/** The dest lacks nothing: what was not asked for, the guest has replaced. */
export function asServed({ disks, ...counts }: DiskRestProgress): DiskRestProgress {
  return { ...counts, disks: disks.map((disk) => ({ ...disk, remainingBytes: 0 })) };
}

/** What was served takes the place of what was copied. */
export function withServed(
  disks: readonly MigrationDisk[],
  progress: DiskRestProgress,
): MigrationDisk[] {
  return disks.map((disk) => {
    const served = progress.disks.find(({ id }) => id === disk.id);
    if (served === undefined) return disk;
    const { totalBytes, remainingBytes } = served;
    return { ...disk, remainingBytes, copiedBytes: totalBytes - remainingBytes };
  });
}

function restBytesOf(disks: readonly MigrationDisk[]): number {
  return disks.reduce((sum, { remainingBytes }) => sum + (remainingBytes ?? 0), 0);
}

/**
 * Null where it would be a guess: nothing is known, which QEMU calls 0 bytes until it has counted,
 * or the guest dirties as fast as it travels.
 */
function etaMs(
  remainingBytes: number,
  dirtyRate: number | null,
  rate: number | null,
): number | null {
  const gain = (rate ?? 0) - (dirtyRate ?? 0);
  if (gain <= 0 || remainingBytes === 0) return null;
  const ms = Math.round((remainingBytes * 1000) / gain);
  return ms > ETA_MS_MAX ? null : ms;
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(value * 10) / 10;
}

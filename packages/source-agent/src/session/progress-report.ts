/** Turns counters of the data path into the migration object that users see. */
import { RateEwma, type Clock } from "@vmferry/core";
import type { MigrationPatch, MigrationStore } from "@vmferry/agent";
import { limits, type MigrationResult } from "@vmferry/protocol";
import type { RamTransfer } from "../ram/ram-transfer.ts";
import type { PrecopyProgress } from "./precopy.ts";

const { PAGE_BYTES } = limits;
const WIRE_HALF_LIFE_MS = 1000;
/** Beyond a day an estimate says nothing. */
const ETA_MS_MAX = 86_400_000;

export class ProgressReport {
  readonly #store: MigrationStore;
  readonly #id: string;
  readonly #clock: Clock;
  readonly #startedMs: number;
  readonly #wire = new RateEwma(WIRE_HALF_LIFE_MS);
  #transfer: RamTransfer | null = null;
  #sampledBytes = 0;
  #passes = 0;
  #stunnedMs: number | null = null;
  #runningMs: number | null = null;
  #ramDigest: string | null = null;

  constructor(store: MigrationStore, id: string, clock: Clock) {
    this.#store = store;
    this.#id = id;
    this.#clock = clock;
    this.#startedMs = clock.nowMs();
  }

  follow(transfer: RamTransfer): void {
    this.#transfer = transfer;
  }

  precopy(progress: PrecopyProgress): void {
    const { sender, out, pendingBytes } = this.#transfer!;
    const { counters } = sender;
    this.#wire.sample(out.sentBytes - this.#sampledBytes, this.#clock.nowMs());
    this.#sampledBytes = out.sentBytes;
    const rate = this.#wire.perSecond;
    const remainingBytes = progress.dirtyBytes + sender.heldBytes + pendingBytes;
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
      wire: this.#wireNow(),
      predictedDowntimeMs: rounded(progress.plan.predictedDowntimeMs),
      etaMs: etaMs(remainingBytes, progress.dirtyBytesPerSecond, rate),
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
      wireBytes: this.#transfer?.out.sentBytes ?? 0,
      ramDigest: this.#ramDigest,
      diskDigests: {},
    };
  }

  #wireNow(): { bytes: number; bytesPerSecond: number | null; reconnects: number } {
    return {
      bytes: this.#transfer?.out.sentBytes ?? 0,
      bytesPerSecond: rounded(this.#wire.perSecond),
      reconnects: 0,
    };
  }
}

/** Null where it would be a guess: nothing is known, or the guest dirties as fast as it travels. */
function etaMs(
  remainingBytes: number,
  dirtyRate: number | null,
  rate: number | null,
): number | null {
  const gain = (rate ?? 0) - (dirtyRate ?? 0);
  if (gain <= 0) return null;
  const ms = Math.round((remainingBytes * 1000) / gain);
  return ms > ETA_MS_MAX ? null : ms;
}

function rounded(value: number | null): number | null {
  return value === null ? null : Math.round(value * 10) / 10;
}

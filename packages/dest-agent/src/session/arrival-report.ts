/** The migration object of the dest agent, fed by the receiver's counters. */
import type { Clock } from "@vmferry/core";
import {
  asProblemCode,
  newMigrationObject,
  type Failure,
  type MigrationPatch,
  type MigrationStore,
  type PageFileError,
} from "@vmferry/agent";
import {
  limits,
  traceIdOf,
  type ControlMessageOf,
  type MigrationDisk,
  type MigrationFallback,
  type MigrationObject,
} from "@vmferry/protocol";
import type { BulkReceiver } from "../bulk/bulk-receiver.ts";
import type { ArrivingDisk } from "../disk/arriving-disk.ts";
import type { PageFetch, WholeMemory } from "../postcopy/page-fetch.ts";
import type { RamReceiver } from "../ram/ram-receiver.ts";

const { PAGE_BYTES } = limits;
const TICK_MS = 500;
/** In their order. */
const PHASES = [
  "disk-copy",
  "pre-copy",
  "stunned",
  "device-state",
  "handing-over",
  "post-copy",
  "completing",
] as const;

/** What counts what has come. */
export interface ArrivalCounters {
  readonly ram: Pick<RamReceiver, "counters" | "totalBytes">;
  readonly bulk: Pick<BulkReceiver, "wireBytes">;
  /** Null where no disk is copied. */
  readonly disks: {
    readonly arriving: readonly Pick<ArrivingDisk, "id" | "receivedBytes">[];
  } | null;
}

/** What is known of pages that come after the hand-over. */
export type FetchedPages = Pick<PageFetch, "counters" | "missingPages" | "waits">;

/** What is known of disks that come after the hand-over. */
export interface FollowingDisks {
  readonly progress: readonly { readonly id: string; readonly remainingBytes: number }[];
}

export class ArrivalReport {
  readonly #store: MigrationStore;
  readonly #id: string;
  readonly #clock: Clock;
  #arrival: ArrivalCounters | null = null;
  #startedMs = 0;
  /** Index of the last phase entered. */
  #entered = -1;
  #ramDigest: string | null = null;
  #diskDigests: Readonly<Record<string, string>> = {};
  #offered: readonly MigrationDisk[] = [];
  #reconnects = 0;
  /** Of memory that comes after the hand-over; null where all of it came before. */
  #pages: FetchedPages | null = null;
  #following: FollowingDisks | null = null;
  #cancelTick: () => void = () => undefined;

  constructor(store: MigrationStore, id: string, clock: Clock) {
    this.#store = store;
    this.#id = id;
    this.#clock = clock;
  }

  begin(offer: ControlMessageOf<"offer">, arrival: ArrivalCounters): void {
    this.#arrival = arrival;
    this.#offered = offeredDisks(offer);
    this.#startedMs = this.#clock.nowMs();
    this.beginUnlessBegun(offer);
    this.#phase(arrival.disks === null ? "pre-copy" : "disk-copy");
    this.#tick();
  }

  /** Also of a guest that is not going to come. */
  beginUnlessBegun(offer: ControlMessageOf<"offer">): void {
    this.#store.createUnlessKnown({
      ...newMigrationObject({
        id: this.#id,
        role: "dest",
        guest: offer.guest.name,
        destination: "here",
        startedAt: this.#clock.date(),
        traceId: traceIdOf(offer.traceparent),
      }),
      // The source cancels; the dest is told.
      mayCancel: false,
    });
  }

  /** The control connection was lost and came back. */
  reconnected(): void {
    this.#reconnects++;
  }

  stunned(): void {
    this.#phase("stunned");
  }

  ramEnded(): void {
    // The end of RAM may overtake the message that announces the stun.
    this.#phase("stunned");
    this.#phase("device-state");
  }

  digests(digests: { readonly ramDigest: string; readonly diskDigests: readonly string[] }): void {
    this.#ramDigest = digests.ramDigest;
    const ids = this.#arrival!.disks?.arriving.map(({ id }) => id) ?? [];
    this.#diskDigests = Object.fromEntries(ids.map((id, i) => [id, digests.diskDigests[i]!]));
  }

  prepared(): void {
    this.#phase("handing-over");
  }

  /** The guest runs here, and the source still has a part of its memory. */
  fetching(pages: FetchedPages): void {
    this.#pages = pages;
    this.#phase("post-copy");
  }

  /** The guest runs here, and the source still has a part of its disks. */
  disksFollow(disks: FollowingDisks): void {
    this.#following = disks;
    this.#phase("post-copy");
    // The guest may have been quicker than the first tick.
    this.#store.update(this.#id, () => this.#counters());
  }

  /** All of memory is here. */
  whole({ ramDigest, equal }: WholeMemory): void {
    this.#ramDigest = ramDigest;
    if (equal !== false) return;
    const detail = "the memory that came after the hand-over is not what the source has sent";
    this.#store.warn(this.#id, { code: "digest-mismatch", detail });
  }

  /** Of pages, on the share. */
  file(fallback: MigrationFallback): void {
    this.#store.update(this.#id, () => ({ fallback }));
  }

  /** The share is no help; what is missing comes by the network. */
  fileTrouble({ code, message: detail }: PageFileError): void {
    this.#store.warn(this.#id, { code: asProblemCode(code, "page-file-failed"), detail });
  }

  completed(): void {
    this.#cancelTick();
    const { wireBytes } = this.#arrival!.bulk;
    const totalMs = Math.round(this.#clock.nowMs() - this.#startedMs);
    const result = { downtimeMs: null, totalMs, wireBytes, ramDigest: this.#ramDigest };
    this.#phase("completing");
    this.#store.finish(
      this.#id,
      { phase: "completed", result: { ...result, diskDigests: this.#diskDigests } },
      this.#counters(),
    );
    this.#arrival = null;
  }

  /** It does not go on at present, and may yet: `detail` says what to do. */
  inDoubt(detail: string): void {
    this.#store.inDoubt(this.#id, detail);
  }

  /** The same, and nothing more comes in this life of the agent. */
  halted(detail: string): void {
    this.#cancelTick();
    this.#store.inDoubt(this.#id, detail);
  }

  /** Some of what follows the guest does not come, and is tried again; null when it comes again. */
  hindered(detail: string | null): void {
    if (detail === null) this.#store.phase(this.#id, "post-copy");
    else this.inDoubt(detail);
  }

  failed(error: Failure): void {
    this.#cancelTick();
    const phase = error.code === "cancelled" ? "cancelled" : "failed";
    this.#store.finish(this.#id, { phase, error }, this.#counters());
    this.#arrival = null;
  }

  /** Phases never go back. */
  #phase(phase: (typeof PHASES)[number]): void {
    const entered = this.#entered;
    if (PHASES.indexOf(phase) <= entered) return;
    this.#entered = PHASES.indexOf(phase);
    this.#store.phase(this.#id, phase);
  }

  #tick(): void {
    this.#cancelTick = this.#clock.after(TICK_MS, () => {
      // Memory is announced when it begins to travel.
      if (this.#arrival!.ram.totalBytes > 0) this.#phase("pre-copy");
      this.#store.update(this.#id, () => this.#counters());
      this.#tick();
    });
  }

  #counters(): MigrationPatch {
    if (this.#arrival === null) return {};
    const { ram, bulk, disks } = this.#arrival;
    const { counters, totalBytes } = ram;
    const object = this.#store.get(this.#id);
    const later = this.#pages?.counters ?? { placedPages: 0, zeroPages: 0 };
    const { missingPages = null } = this.#pages ?? {};
    return {
      ram: {
        ...object.ram,
        totalBytes,
        sentBytes: (counters.fedPages + later.placedPages - later.zeroPages) * PAGE_BYTES,
        zeroBytes: (counters.zeroPages + later.zeroPages) * PAGE_BYTES,
        remainingBytes:
          missingPages === null ? object.ram.remainingBytes : missingPages * PAGE_BYTES,
      },
      faults: faultsOf(this.#pages),
      disks: this.#offered.map((disk) => {
        const following = this.#following?.progress.find(({ id }) => id === disk.id);
        if (following !== undefined) return afterHandOver(disk, following.remainingBytes);
        const arriving = disks?.arriving.find(({ id }) => id === disk.id);
        if (arriving === undefined) return disk;
        // What does not follow the guest was whole before it ran.
        const isThere = this.#pages !== null || this.#following !== null;
        const remainingBytes = isThere ? 0 : disk.remainingBytes;
        return { ...disk, remainingBytes, copiedBytes: arriving.receivedBytes };
      }),
      wire: { ...object.wire, bytes: bulk.wireBytes, reconnects: this.#reconnects },
    };
  }
}

/** What the guest replaced itself counts as copied: it is not missing any more. */
function afterHandOver(disk: MigrationDisk, remainingBytes: number): MigrationDisk {
  return { ...disk, remainingBytes, copiedBytes: (disk.totalBytes ?? 0) - remainingBytes };
}

function faultsOf(pages: FetchedPages | null): MigrationObject["faults"] {
  if (pages === null) return { count: 0, p50Us: null, p99Us: null };
  const { waits } = pages;
  return { count: waits.count, p50Us: waits.quantileUs(0.5), p99Us: waits.quantileUs(0.99) };
}

/** The dest counts what it wrote; what is left is the source's to know. */
function offeredDisks({ guest, disks }: ControlMessageOf<"offer">): readonly MigrationDisk[] {
  return (guest.disks ?? []).map(({ id, mode = "copy" }, index) => ({
    id,
    mode,
    totalBytes: disks[index]!.sizeBytes,
    copiedBytes: 0,
    remainingBytes: null,
    mirroredBytes: 0,
    heldBytes: 0,
    round: 0,
    zeroBytes: 0,
    unchangedBytes: 0,
    savedBytes: 0,
  }));
}

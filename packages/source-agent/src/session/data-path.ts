/**
 * What travels of a guest in one attempt: its disks and its memory, over one transport. Opened once
 * the dest has accepted; whatever fails in it is told by `onFailed`.
 */
import { join } from "node:path";
import { assert, Deferred, type Clock } from "@vmferry/core";
import type { HeldSockets } from "@vmferry/block";
import { asProblemCode, pageFileKeyOf, type Logger, type MapSource } from "@vmferry/agent";
import type { ControlMessageOf, MigrationLimits, MigrationMap } from "@vmferry/protocol";
import type { QmpClient } from "@vmferry/qemu";
import { mapOfDisk } from "../disk/disk-map.ts";
import { LazyDeparture } from "../disk/lazy-departure.ts";
import type { SourceDisks } from "../disk/source-disks.ts";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { BlockDialer, PageDialer } from "../adapters/peer-dialer.ts";
import { MemoryRest } from "../postcopy/memory-rest.ts";
import type { DrainStart } from "../ram/drain.ts";
import { RamTransfer } from "../ram/ram-transfer.ts";
import { Transport } from "../transport/transport.ts";
import type { MigrationPlan, OnWarning } from "./migration-plan.ts";
import type { PeerLink } from "./peer-link.ts";
import { notPossible, PRECOPY_ONLY } from "./postcopy-check.ts";
import { Precopy, type PrecopyProgress } from "./precopy.ts";
import type { ProgressReport } from "./progress-report.ts";

export interface DataPathOptions {
  readonly plan: MigrationPlan;
  readonly offer: ControlMessageOf<"offer">;
  readonly peer: PeerLink;
  readonly disks: SourceDisks;
  readonly qmp: QmpClient;
  /** Directory of the migration's sockets. */
  readonly runDir: string;
  readonly sockets: HeldSockets;
  readonly limits: () => MigrationLimits;
  readonly dialPages: PageDialer & BlockDialer;
  readonly memoryDir: string;
  readonly sharedDir: string | null;
  readonly random: () => number;
  readonly report: ProgressReport;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onWarning: OnWarning;
  readonly onFailed: (error: unknown) => void;
}

/** Over all of the guest's state: what the dest has to have. */
export interface StateDigests {
  readonly ramDigest: string;
  /** One a disk that is copied, in their order. */
  readonly diskDigests: string[];
}

export class DataPath implements MapSource {
  readonly transport: Transport;
  readonly disks: SourceDisks;
  readonly #options: DataPathOptions;
  readonly #ramSent = new Deferred<string>();
  readonly #restKept = new Deferred();
  #ram!: RamTransfer;
  #copyingDisks = false;
  #precopy: Precopy | null = null;
  /** Null while nothing of memory has to come after the hand-over. */
  #rest: MemoryRest | null = null;
  /** Null where no disk follows the guest. */
  readonly lazy: LazyDeparture | null;

  private constructor(options: DataPathOptions) {
    const { peer, limits, clock, onFailed } = options;
    this.#options = options;
    this.disks = options.disks;
    const { lazy } = options.disks;
    this.lazy =
      lazy.length === 0
        ? null
        : new LazyDeparture({
            ...options,
            disks: lazy,
            dialer: options.dialPages,
            about: { ...options.offer, generation: 1 },
            hashSeed: options.offer.hashSeed,
            compression: peer.agreement.features.has("zstd"),
          });
    this.transport = new Transport({
      connections: peer.bulk,
      creditBytes: peer.accept.creditBytes,
      bandwidthBytesPerSecond: limits().bandwidthBytesPerSecond,
      compression: peer.agreement.features.has("zstd"),
      clock,
      onFailed,
    });
    peer.onOutage({
      onAway: () => {
        this.transport.linkIsAway();
      },
      onBack: () => {
        this.transport.linkIsBack();
      },
    });
  }

  static async open(options: DataPathOptions): Promise<DataPath> {
    const { offer, report, clock, onFailed } = options;
    const path = new DataPath(options);
    path.#ram = await RamTransfer.open({
      socketPath: `${path.#socketPrefix}.mig`,
      transport: path.transport,
      hashSeed: offer.hashSeed,
      clock,
      onRamSent: (ramDigest) => {
        report.ramSent(ramDigest);
        path.#ramSent.resolve(ramDigest);
      },
      onFailed,
    });
    report.follow(path.transport, path.#ram, path.disks);
    return path;
  }

  get ram(): RamTransfer {
    return this.#ram;
  }

  /** Every disk, until what is left of them fits the downtime budget; they follow from then on. */
  async copyDisks(): Promise<void> {
    const { plan, offer, qmp, peer, report, onWarning, ...rest } = this.#options;
    const { limits, clock, logger, onFailed } = rest;
    this.#copyingDisks = true;
    await this.disks.begin({
      qmp,
      transport: this.transport,
      socketPrefix: this.#socketPrefix,
      sockets: this.#options.sockets,
      hashSeed: offer.hashSeed,
      disk: plan.disk,
      // The blocks of a disk do not follow; its writes are slowed down instead.
      onStall: plan.onStall === "post-copy" ? "throttle" : plan.onStall,
      limits,
      roundTripMs: () => peer.roundTripMs,
      clock,
      logger,
      onProgress: (roundOver) => {
        if (this.#copyingDisks) report.diskCopy(roundOver);
      },
      onWarning,
      onFailed,
    });
    await this.disks.transfer!.copy();
    this.#copyingDisks = false;
  }

  /** Memory, until QEMU has stunned the guest; resolves with when that was. */
  async precopy(qemu: SourceQemu, signal: AbortSignal): Promise<number> {
    const { plan, peer, limits, report, clock, onWarning } = this.#options;
    const { transport, ram } = this;
    const onProgress = (progress: PrecopyProgress): void => {
      transport.out.setRoundTrip(peer.roundTripMs);
      report.precopy(progress);
    };
    const roundTripMs = (): number => peer.roundTripMs;
    const drainage =
      this.postcopyRefusal === null
        ? { begin: (start: DrainStart) => this.#drain(start), readBytes: () => ram.readBytes }
        : null;
    const ports = { qemu, transfer: ram, transport, disks: this.disks.transfer, drainage, clock };
    const precopy = new Precopy({ ...ports, roundTripMs, limits, onProgress, onWarning }, plan);
    this.#precopy = precopy;
    await precopy.run(ram.uri, signal);
    return precopy.stunnedAtMs;
  }

  /** Null where some of memory may come after the hand-over. */
  get postcopyRefusal(): string | null {
    const { offer, peer } = this.#options;
    const { postCopyRefusal } = peer.accept;
    if (!offer.postCopy) return PRECOPY_ONLY;
    return postCopyRefusal === "" ? null : `the dest says: ${postCopyRefusal}`;
  }

  /** Once pre-copy has begun. Where the dest has turned out to refuse it, a warning says so. */
  postcopy(): void {
    if (this.#precopy === null) return;
    const refusal = this.postcopyRefusal;
    if (refusal === null) this.#precopy.postcopy();
    else this.#options.onWarning("post-copy-unavailable", notPossible(refusal));
  }

  get rest(): MemoryRest | null {
    return this.#rest;
  }

  async #drain(start: DrainStart): Promise<void> {
    const { offer, peer, limits, onWarning } = this.#options;
    const { blocks } = this.#ram;
    assert(blocks !== null, "QEMU has announced its memory before its first pass is over");
    this.#rest = await MemoryRest.drain(this.#ram, blocks, {
      ...this.#options,
      about: { ...offer, generation: 1 },
      fileKey: pageFileKeyOf(offer),
      start,
      onFileTrouble: (error) => {
        onWarning(asProblemCode(error.code, "page-file-failed"), error.message);
      },
      compression: peer.agreement.features.has("zstd"),
      bandwidthBytesPerSecond: limits().bandwidthBytesPerSecond,
      linkBytesPerSecond: this.transport.out.rate.bytesPerSecond,
    });
    this.#options.logger.info({ start }, "memory goes to a store instead of the link");
  }

  /**
   * The vCPUs stand still, and QEMU has not been told to go on: no write comes after this. QEMU must
   * not give up its disks before.
   */
  async hold(): Promise<void> {
    await this.disks.settle();
    this.disks.transfer?.hold();
  }

  /** Then: sends what is left, and tells what the dest has to have then. */
  async finish(): Promise<StateDigests> {
    const [ramDigest, diskDigests] = await Promise.all([
      this.#ramSent.promise,
      this.#finishDisks(),
    ]);
    // Before QEMU lets go of the images: what is written down of them is as the guest left them.
    await this.lazy?.keep();
    // While the dest loads: before the hand-over an agent that starts anew takes the guest back.
    const restKept = this.#rest?.keep() ?? Promise.resolve();
    restKept.then(
      () => {
        this.#restKept.resolve();
      },
      (error: unknown) => {
        this.#options.onFailed(error);
      },
    );
    return { ramDigest, diskDigests };
  }

  /** Behind `finish`, and before anything is handed over: whoever serves the dest finds what it lacks. */
  get restKept(): Promise<void> {
    return this.#restKept.promise;
  }

  map(cells: number): MigrationMap {
    const nowMs = this.#options.clock.nowMs();
    const disks = this.disks.transfer?.disks ?? [];
    return {
      ram: this.#ram.sender.map(cells),
      disks: disks.map((disk) => mapOfDisk(disk, { cells, nowMs })),
    };
  }

  acknowledged(bytes: number): void {
    try {
      this.transport.out.acknowledged(bytes);
    } catch (error) {
      this.#options.onFailed(error);
    }
  }

  /** The guest is to run here: it may write to its disks. */
  release(): void {
    this.disks.release();
  }

  /** Nothing is sent any more. Before SHUT was forwarded QEMU then resumes the guest by itself. */
  async close(): Promise<void> {
    this.#copyingDisks = false;
    this.transport.stop();
    await this.#ram.close();
    await this.#rest?.close();
    await this.lazy?.close();
  }

  async #finishDisks(): Promise<string[]> {
    const { transfer } = this.disks;
    if (transfer === null) return [];
    const digests = await transfer.finish();
    const byId = transfer.disks.map(({ id }, index) => [id, digests[index]!] as const);
    this.#options.report.disksSent(Object.fromEntries(byId));
    return digests;
  }

  get #socketPrefix(): string {
    return join(this.#options.runDir, this.#options.plan.id.slice(0, 8));
  }
}

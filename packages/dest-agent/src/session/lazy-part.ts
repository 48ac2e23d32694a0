/**
 * One disk that follows its guest: the export that QEMU stands on, and the image behind it until that
 * is an ordinary one.
 *
 *   export ─▶ begin ───────────────┐
 *   reopen, again until that works ┴▶ settle
 *
 * Before there is anything behind the export, what QEMU asks waits.
 */
import { DiskHashes, type Logger, type ReopenedImage } from "@vmferry/agent";
import {
  ImageError,
  MapFile,
  PartialMark,
  type CreatedImage,
  type HeldSockets,
} from "@vmferry/block";
import { Deferred, sleep, type Clock } from "@vmferry/core";
import { resolveImage } from "@vmferry/qemu";
import type { KeptDisk } from "../adapters/kept-disks.ts";
import { LazyExport } from "../adapters/lazy-export.ts";
import { AwaitedDevice } from "../disk/awaited-device.ts";
import type { BlockFetcher } from "../disk/block-fetcher.ts";
import { DiskError } from "../disk/disk-failure.ts";
import { LazyImage, type LazyImageOptions } from "../disk/lazy-image.ts";
import { reopenWhole } from "../disk/whole-image.ts";
import { leaveExport, type GuestOfDisks, type WayToImage } from "./leave-export.ts";

/** A guest that has just come, or may have, needs link and processors for what it asks for itself. */
const FIRST_STEPS_MS = 400;
/** A killed agent lets go of its locks when the kernel is done with it. */
const LOCK_AGAIN_MS = 500;

export interface LazyDisksPorts {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Those of the exports outlive the agent. */
  readonly sockets: HeldSockets;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
}

export interface LazyPartPorts extends LazyDisksPorts {
  readonly fetcher: BlockFetcher;
  readonly hashSeed: string;
  /** It may have lost something, or both ends do not agree about it. */
  readonly onFailed: (error: unknown) => void;
  /** It is whole and stays behind this agent, and why; null when it does not any more. */
  readonly onStuck: (disk: string, reason: string | null) => void;
}

export interface LazyProgress {
  readonly id: string;
  readonly totalBytes: number;
  /** That only the source has. */
  readonly remainingBytes: number;
  /** For how long a request has waited. */
  readonly waitingMs: number | null;
}

export interface ReopenOptions {
  readonly imageDirectory: string;
  readonly migrationId: string;
  /** Of its lock, as long as somebody else has that. */
  readonly lockAttempts: number;
}

export class LazyPart {
  readonly kept: KeptDisk;
  readonly #ports: LazyPartPorts;
  /** Null where an earlier life of the agent made the image. */
  readonly #created: CreatedImage | null;
  /** Null before its size is known. */
  #device: AwaitedDevice | null = null;
  #exported: LazyExport | null = null;
  /** Null before it has begun or is reopened, and where nothing of the disk is missing any more. */
  #lazy: LazyImage | null = null;
  /** Where nothing is missing, and QEMU may not know that yet. */
  #whole: ReopenedImage | null = null;
  /** Its image is somebody else's by now, or has never been its guest's. */
  #isForeign = false;
  /** It has begun, or is reopened. */
  readonly #ready = new Deferred();

  constructor(kept: KeptDisk, created: CreatedImage | null, ports: LazyPartPorts) {
    this.kept = kept;
    this.#created = created;
    this.#ports = ports;
    if (created !== null) this.#device = new AwaitedDevice(created.image.sizeBytes);
  }

  get isForeign(): boolean {
    return this.#isForeign;
  }

  /** Null where not even its size is known, or it is not this guest's. */
  progress(isWhole: boolean): LazyProgress | null {
    if (this.#device === null) return null;
    const { id, index } = this.kept;
    const { sizeBytes: totalBytes } = this.#device;
    if (this.#lazy === null) {
      const remainingBytes = isWhole || this.#whole !== null ? 0 : totalBytes;
      return { id, totalBytes, remainingBytes, waitingMs: null };
    }
    const { fetcher, clock } = this.#ports;
    const sinceMs = fetcher.waitingSinceMs(index);
    const waitingMs = sinceMs === null ? null : Math.round(clock.nowMs() - sinceMs);
    return { id, totalBytes, remainingBytes: this.#lazy.disk.remainingBytes, waitingMs };
  }

  /** QEMU may connect from then on. */
  async export(): Promise<void> {
    const { sockets, logger } = this.#ports;
    const { id: diskId, socketPath } = this.kept;
    const device = this.#device!;
    this.#exported ??= await LazyExport.open({ diskId, socketPath, sockets, device, logger });
  }

  /** Resolves when what is missing is written down. */
  async begin(): Promise<void> {
    const { sizeBytes } = this.#created!.image;
    const { unitBytes } = this.kept;
    const hashes = new DiskHashes({ sizeBytes, unitBytes, seedHex: this.#ports.hashSeed });
    hashes.leaveOut(0, hashes.units);
    this.#lazy = await LazyImage.begin(this.#created!, hashes, this.#imageOptions);
    this.#device!.serve(this.#lazy.disk);
    this.#ready.resolve();
  }

  /** Resolves when its export outlives this process, or cannot. */
  async held(): Promise<void> {
    await this.#exported!.held;
  }

  /** After a restart; again after a rejection. What of it has been opened stays open meanwhile. */
  async reopen({ imageDirectory, migrationId, lockAttempts }: ReopenOptions): Promise<void> {
    if (this.#ready.settled) return;
    const { kept } = this;
    const { path } = await resolveImage({ imageDirectory, name: kept.image });
    const mark = await PartialMark.read(path);
    if (mark === "damaged") throw new Error(`the mark of ${path} is damaged`);
    // The map is removed first: somebody else has removed the mark, and a part may be missing.
    if (mark === null && (await MapFile.isThere(path))) {
      const detail = `disk ${kept.id}: ${path} has lost its mark, and still has a present map`;
      throw new DiskError(detail, { code: "dest-disk-failed" });
    }
    const isOurs = mark === null || mark.subject.migrationId === migrationId;
    // What never began to be one, or was taken by somebody else since.
    this.#isForeign = !isOurs || mark?.state === "filling" || mark?.state === "left";
    if (!this.#isForeign) await this.#open(path, mark, lockAttempts);
    this.#ready.resolve();
  }

  /**
   * Resolves when the image is whole and an ordinary one, and QEMU stands on it alone. One that is not
   * reopened yet is waited for.
   */
  async settle(guest: GuestOfDisks): Promise<void> {
    await this.#ready.promise;
    const [lazy, whole] = [this.#lazy, this.#whole];
    if (lazy !== null) {
      await this.#fetchAll(lazy);
      await this.#leave(guest, {
        image: lazy.image,
        unlock: () => lazy.unlock(),
        isSuspect: () => lazy.disk.isLost,
      });
      await lazy.forget();
    }
    if (whole === null) return;
    const unlock = async (): Promise<void> => {
      await whole.locked;
      await whole.unlock();
    };
    await this.#leave(guest, { image: whole, unlock, isSuspect: () => whole.isSuspect });
    await whole.close();
    const mark = await PartialMark.read(whole.path);
    await MapFile.remove(whole.path);
    if (mark instanceof PartialMark) await mark.remove();
  }

  /** Nothing is served any more. The image stays. */
  async abandon(reason: Error): Promise<void> {
    this.#ready.reject(reason);
    this.#device?.abandon(reason);
    await this.#lazy?.close();
    await this.#whole?.close();
    await this.#created?.image.close();
    await this.#exported?.close();
  }

  async #open(path: string, mark: PartialMark | null, lockAttempts: number): Promise<void> {
    const isLazy = mark?.state === "lazy";
    if (!isLazy) this.#whole ??= await reopenWhole(path, this.#ports.logger);
    this.#device ??= new AwaitedDevice(this.#whole?.sizeBytes ?? mark!.subject.imageBytes);
    await this.export();
    if (isLazy) this.#lazy ??= await this.#takeUp(path, lockAttempts);
    this.#device.serve(this.#whole ?? this.#lazy!.disk);
  }

  async #takeUp(path: string, attempts: number): Promise<LazyImage> {
    const { hashSeed: seedHex, clock } = this.#ports;
    const known = { unitBytes: this.kept.unitBytes, seedHex };
    for (let attempt = 1; ; attempt++) {
      try {
        return await LazyImage.takeUp(path, known, this.#imageOptions);
      } catch (error) {
        const { cause } = error as Error;
        const isLocked = cause instanceof ImageError && cause.code === "image-locked";
        if (!isLocked || attempt >= attempts) throw error;
        await sleep(clock, LOCK_AGAIN_MS);
      }
    }
  }

  get #imageOptions(): LazyImageOptions {
    const { id, index } = this.kept;
    const { fetcher, clock, compression, onFailed } = this.#ports;
    return { id, index, fetcher, compression, clock, onFailed };
  }

  async #fetchAll(lazy: LazyImage): Promise<void> {
    const { id, index } = this.kept;
    await sleep(this.#ports.clock, FIRST_STEPS_MS);
    lazy.disk.pull();
    await lazy.disk.whole;
    this.#ports.fetcher.end(index, lazy.disk.end());
    if (!(await lazy.disk.equal)) {
      const detail = `disk ${id}: what came after the hand-over is not what the source has`;
      throw new DiskError(detail, { code: "digest-mismatch" });
    }
    await lazy.complete();
    this.#ports.logger.info({ disk: id }, "a lazy disk is whole");
  }

  async #leave(guest: GuestOfDisks, way: WayToImage): Promise<void> {
    const { clock, logger, onFailed: onSuspect } = this.#ports;
    const { id: disk } = this.kept;
    const onStuck = (reason: string | null): void => {
      this.#ports.onStuck(disk, reason);
    };
    const about = { exported: this.#exported, disk, guest };
    await leaveExport({ ...about, clock, logger, onSuspect, onStuck }, way);
  }
}

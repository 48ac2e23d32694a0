/**
 * The disks of one guest that follow it, from before its QEMU is started until that has every image
 * for itself:
 *
 *   open (exports, on which QEMU starts) ─▶ begin (before PREPARED) ─▶ whole ─▶ ordinary images
 *   the agent starts anew: takeUpAll (exports are there again) ────────┘
 *
 * The exports outlive the session that opened them: as long as a unit is missing, QEMU stands on them.
 */
import { join } from "node:path";
import { DiskHashes, type GuestBacking, type Logger, type ReopenedImage } from "@vmferry/agent";
import {
  ImageError,
  MapFile,
  PartialMark,
  type CreatedImage,
  type HeldSockets,
} from "@vmferry/block";
import { messageOf, sleep, type Clock } from "@vmferry/core";
import { CloseCode, type ControlMessageOf } from "@vmferry/protocol";
import { resolveImage } from "@vmferry/qemu";
import { fetchBlocks, type BlockFetching } from "../adapters/block-link.ts";
import { guestNames } from "../adapters/guest-names.ts";
import {
  dropDisks,
  keepDisks,
  readDisks,
  type KeptDisk,
  type KeptDisks,
} from "../adapters/kept-disks.ts";
import { LazyExport } from "../adapters/lazy-export.ts";
import { AwaitedDevice } from "../disk/awaited-device.ts";
import { BlockFetcher } from "../disk/block-fetcher.ts";
import { DiskError } from "../disk/disk-failure.ts";
import type { EmptyDisk } from "../disk/incoming-disks.ts";
import { LazyImage, type LazyImageOptions } from "../disk/lazy-image.ts";
import { reopenWhole } from "../disk/whole-image.ts";
import { leaveExport, type GuestOfDisks, type WayToImage } from "./leave-export.ts";
import { isOfClaim } from "./claim.ts";
import type { BlocksOwner, PageLink } from "./page-link.ts";

/** A killed agent lets go of its locks when the kernel is done with it. */
const LOCK_AGAIN_MS = 500;
const LOCK_ATTEMPTS_MAX = 60;

export interface LazyDisksPorts {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Those of the exports outlive the agent. */
  readonly sockets: HeldSockets;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
}

interface Part {
  readonly kept: KeptDisk;
  /** Null where an earlier life of the agent made the image. */
  readonly created: CreatedImage | null;
  readonly device: AwaitedDevice;
  exported: LazyExport | null;
  /** Null before `begin`, and where nothing of the disk is missing any more. */
  lazy: LazyImage | null;
  /** Where nothing is missing, and QEMU may not know that yet. */
  whole: ReopenedImage | null;
}

export interface TakeUpPorts extends Omit<LazyDisksPorts, "compression"> {
  /** Of all guests. */
  readonly guestsDir: string;
  readonly imageDir: string;
}

export class LazyDisks implements BlocksOwner {
  readonly #ports: LazyDisksPorts;
  readonly #kept: KeptDisks;
  readonly #parts: readonly Part[];
  readonly #fetcher: BlockFetcher;
  #directory: string | null = null;
  /** Of an earlier life. */
  #guest: string | null = null;
  #link: { readonly attempt: number; readonly fetching: BlockFetching } | null = null;
  #begun: Promise<void> | null = null;
  #arrival: Promise<void> | null = null;
  #isWhole = false;
  /** Why disks of an earlier life cannot be gone on with; null where they can. */
  #lost: { readonly reason: unknown } | null = null;
  /** A disk may have lost something, or both ends do not agree about it. */
  onFailed: (error: unknown) => void = () => undefined;
  /** Disks that are whole stay behind this agent, and why; null when none does any more. */
  onStuck: (reason: string | null) => void = () => undefined;
  /** By disk. */
  readonly #stuck = new Map<string, string>();

  private constructor(ports: LazyDisksPorts, kept: KeptDisks, parts: readonly Part[]) {
    this.#ports = ports;
    this.#kept = kept;
    this.#parts = parts;
    this.#fetcher = new BlockFetcher(ports.clock);
  }

  static of(
    disks: readonly EmptyDisk[],
    offer: Pick<ControlMessageOf<"offer">, "migrationId" | "epoch" | "incarnation" | "hashSeed">,
    ports: LazyDisksPorts,
  ): LazyDisks {
    const { migrationId, epoch, incarnation, hashSeed } = offer;
    const claim = { migrationId, epoch, generation: 1, incarnation };
    const parts = disks.map(({ disk, created }) => {
      const socketPath = ports.sockets.newPath(String(disk.index));
      return partOf({ ...disk, socketPath }, created.image.sizeBytes, created);
    });
    return new LazyDisks(ports, { claim, hashSeed, disks: parts.map(({ kept }) => kept) }, parts);
  }

  /**
   * Of every guest that an earlier life of the agent has left with such disks; no others are there
   * yet. Rejects where nobody can say which guests there are.
   */
  static async takeUpAll(ports: TakeUpPorts): Promise<LazyDisks[]> {
    const names = await guestNames(ports.guestsDir);
    const taken = names.map(async (name) => {
      const logger = ports.logger.child({ guest: name });
      return LazyDisks.#takeUp(name, { ...ports, logger });
    });
    const all = (await Promise.all(taken)).filter((disks) => disks !== null);
    const served = all.flatMap((disks) => disks.#served);
    await ports.sockets.giveUpAllBut(served).catch((error: unknown) => {
      ports.logger.warn({ err: error }, "sockets of exports that are no more stay");
    });
    return all;
  }

  /** Disks that cannot be served are lost, not absent: nobody may say that nothing of them is missing. */
  static async #takeUp(guest: string, ports: TakeUpPorts): Promise<LazyDisks | null> {
    const directory = join(ports.guestsDir, guest);
    const parts: Part[] = [];
    // Every agent that has lazy disks has zstd.
    const all = { ...ports, compression: true };
    let disks = new LazyDisks(all, UNREADABLE, parts);
    try {
      const kept = await readDisks(directory);
      if (kept === null) return null;
      disks = new LazyDisks(all, kept, parts);
      disks.#directory = directory;
      await disks.#reopenAll(ports.imageDir, parts);
      ports.logger.warn(
        { disks: disks.progress },
        "lazy disks of an earlier life are served again",
      );
    } catch (reason) {
      disks.#lost = { reason };
      disks.#guest = guest;
      ports.logger.error({ err: reason }, "lazy disks of an earlier life cannot be served");
    }
    return disks;
  }

  /** One that cannot be served does not keep the guest from the others. */
  async #reopenAll(imageDirectory: string, parts: Part[]): Promise<void> {
    for (const kept of this.#kept.disks) {
      try {
        await this.#reopen(kept, { imageDirectory, parts });
      } catch (reason) {
        this.#lost ??= { reason };
        this.#ports.logger.error({ disk: kept.id, err: reason }, "a lazy disk cannot be served");
      }
    }
  }

  /** Those that cannot be read belong to whatever is known of their guest. */
  isOf({ migrationId, guest }: { readonly migrationId: string; readonly guest: string }): boolean {
    const { claim } = this.#kept;
    return this.#kept === UNREADABLE ? guest === this.#guest : claim.migrationId === migrationId;
  }

  /** QEMU stands on the exports: what it is started with, and what has to be there before. */
  get backing(): GuestBacking {
    return {
      disks: () =>
        new Map(
          this.#parts.map(({ kept: { id, socketPath } }) => {
            return [id, LazyExport.backing({ diskId: id, socketPath })];
          }),
        ),
      open: async (directory) => {
        this.#directory = directory;
        await dropDisks(directory);
        // At once: what the first one's socket is held by may have to be started.
        const opened = await Promise.allSettled(this.#parts.map((part) => this.#export(part)));
        const failed = opened.find((outcome) => outcome.status === "rejected");
        if (failed !== undefined) throw failed.reason;
      },
    };
  }

  /** Bytes that only the source has, by the disks' ids, and for how long a request has waited. */
  get progress(): readonly {
    readonly id: string;
    readonly totalBytes: number;
    readonly remainingBytes: number;
    readonly waitingMs: number | null;
  }[] {
    const nowMs = this.#ports.clock.nowMs();
    return this.#parts.map(({ kept: { id, index }, device, lazy, whole }) => {
      const { sizeBytes: totalBytes } = device;
      if (lazy === null) {
        const remainingBytes = this.#isWhole || whole !== null ? 0 : totalBytes;
        return { id, totalBytes, remainingBytes, waitingMs: null };
      }
      const sinceMs = this.#fetcher.waitingSinceMs(index);
      const waitingMs = sinceMs === null ? null : Math.round(nowMs - sinceMs);
      return { id, totalBytes, remainingBytes: lazy.disk.remainingBytes, waitingMs };
    });
  }

  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** Resolves when neither a crash nor a kill can make ordinary images of them. */
  begin(): Promise<void> {
    return (this.#begun ??= this.#begin());
  }

  claimMatches(hello: ControlMessageOf<"blocks-hello">): boolean {
    const { claim } = this.#kept;
    return isOfClaim({ stun: claim, incarnation: claim.incarnation }, hello);
  }

  attachBlocks(attempt: number, link: PageLink): void {
    if (this.#isWhole) {
      link.close(CloseCode.DONE);
      return;
    }
    if (this.#link !== null && attempt <= this.#link.attempt) {
      link.close(CloseCode.SESSION_ENDED);
      return;
    }
    this.#link?.fetching.close(CloseCode.SESSION_ENDED);
    const fetching = fetchBlocks(link, this.#fetcher);
    this.#link = { attempt, fetching };
    void fetching.ended.then((reason) => {
      this.#ports.logger.info({ reason: messageOf(reason) }, "a connection of blocks has ended");
    });
  }

  /**
   * The guest runs, or may have: fetches what nobody asked for yet. Resolves when every image is whole
   * and an ordinary one, and QEMU stands on it alone.
   */
  whole(guest: GuestOfDisks): Promise<void> {
    return (this.#arrival ??= this.#whole(guest));
  }

  /** The guest is refused, and its QEMU gone: nothing is served any more. The images stay. */
  async abandon(): Promise<void> {
    await this.#begun?.catch(() => undefined);
    const reason = new Error("the guest was refused");
    for (const part of this.#parts) {
      part.device.abandon(reason);
      await part.lazy?.close();
      await part.whole?.close();
      await part.created?.image.close();
      await part.exported?.close();
    }
    this.#link?.fetching.close(CloseCode.SESSION_ENDED);
    if (this.#directory !== null) await dropDisks(this.#directory);
  }

  async #begin(): Promise<void> {
    // First: of what is not written down nobody could say how to go on with it.
    await keepDisks(this.#directory!, this.#kept);
    for (const part of this.#parts) {
      const { kept, created } = part;
      const { sizeBytes } = created!.image;
      const { unitBytes } = kept;
      const hashes = new DiskHashes({ sizeBytes, unitBytes, seedHex: this.#kept.hashSeed });
      hashes.leaveOut(0, hashes.units);
      part.lazy = await LazyImage.begin(created!, hashes, this.#optionsOf(kept));
      part.device.serve(part.lazy.disk);
    }
    for (const { exported } of this.#parts) await exported!.held;
  }

  async #reopen(
    kept: KeptDisk,
    where: { readonly imageDirectory: string; readonly parts: Part[] },
  ): Promise<void> {
    const { path } = await resolveImage({ ...where, name: kept.image });
    const mark = await PartialMark.read(path);
    if (mark === "damaged") throw new Error(`the mark of ${path} is damaged`);
    // The map is removed first: somebody else has removed the mark, and a part may be missing.
    if (mark === null && (await MapFile.isThere(path))) {
      const detail = `disk ${kept.id}: ${path} has lost its mark, and still has a present map`;
      throw new DiskError(detail, { code: "dest-disk-failed" });
    }
    const isOurs = mark === null || mark.subject.migrationId === this.#kept.claim.migrationId;
    // What never began to be one, or was taken by somebody else since.
    if (!isOurs || mark?.state === "filling" || mark?.state === "left") return;
    const isLazy = mark?.state === "lazy";
    const whole = isLazy ? null : await reopenWhole(path, this.#ports.logger);
    const part = partOf(kept, whole?.sizeBytes ?? mark!.subject.imageBytes, null);
    part.whole = whole;
    where.parts.push(part);
    await this.#export(part);
    try {
      if (whole === null) part.lazy = await this.#takeUpLocked(path, kept);
      part.device.serve(whole ?? part.lazy!.disk);
    } catch (error) {
      part.device.abandon(error as Error);
      throw error;
    }
  }

  async #takeUpLocked(path: string, kept: KeptDisk): Promise<LazyImage> {
    const known = { unitBytes: kept.unitBytes, seedHex: this.#kept.hashSeed };
    for (let attempt = 1; ; attempt++) {
      try {
        return await LazyImage.takeUp(path, known, this.#optionsOf(kept));
      } catch (error) {
        const { cause } = error as Error;
        const isLocked = cause instanceof ImageError && cause.code === "image-locked";
        if (!isLocked || attempt === LOCK_ATTEMPTS_MAX) throw error;
        await sleep(this.#ports.clock, LOCK_AGAIN_MS);
      }
    }
  }

  #optionsOf({ id, index }: KeptDisk): LazyImageOptions {
    const { clock, compression } = this.#ports;
    const onFailed = (error: unknown): void => {
      this.#failed(error);
    };
    return { id, index, fetcher: this.#fetcher, compression, clock, onFailed };
  }

  async #export(part: Part): Promise<void> {
    const { kept, device } = part;
    const { logger, sockets } = this.#ports;
    const where = { diskId: kept.id, socketPath: kept.socketPath };
    part.exported = await LazyExport.open({ ...where, sockets, device, logger });
  }

  get #served(): readonly string[] {
    return this.#parts.filter((part) => part.exported !== null).map((part) => part.kept.socketPath);
  }

  async #whole(guest: GuestOfDisks): Promise<void> {
    try {
      if (this.#lost !== null) throw this.#lost.reason;
      await Promise.all(this.#parts.map((part) => this.#settle(part, guest)));
    } catch (error) {
      this.#failed(error);
      throw error;
    }
    this.#isWhole = true;
    this.#link?.fetching.close(CloseCode.DONE);
    if (this.#directory !== null) await dropDisks(this.#directory);
  }

  async #settle(part: Part, guest: GuestOfDisks): Promise<void> {
    const { lazy, whole } = part;
    if (lazy !== null) {
      await this.#fetchAll(part.kept, lazy);
      await this.#leave(part, guest, {
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
    await this.#leave(part, guest, { image: whole, unlock, isSuspect: () => whole.isSuspect });
    await whole.close();
    const mark = await PartialMark.read(whole.path);
    await MapFile.remove(whole.path);
    if (mark instanceof PartialMark) await mark.remove();
  }

  async #fetchAll({ id, index }: KeptDisk, lazy: LazyImage): Promise<void> {
    lazy.disk.pull();
    await lazy.disk.whole;
    this.#fetcher.end(index, lazy.disk.end());
    if (!(await lazy.disk.equal)) {
      const detail = `disk ${id}: what came after the hand-over is not what the source has`;
      throw new DiskError(detail, { code: "digest-mismatch" });
    }
    await lazy.complete();
    this.#ports.logger.info({ disk: id }, "a lazy disk is whole");
  }

  async #leave({ exported, kept }: Part, guest: GuestOfDisks, way: WayToImage): Promise<void> {
    const onSuspect = (error: unknown): void => {
      this.#failed(error);
    };
    const onStuck = (reason: string | null): void => {
      this.#setStuck(kept.id, reason);
    };
    const leaving = { exported, disk: kept.id, guest, onSuspect, onStuck };
    await leaveExport({ ...this.#ports, ...leaving }, way);
  }

  #setStuck(disk: string, reason: string | null): void {
    if (reason === null && !this.#stuck.delete(disk)) return;
    if (reason !== null) this.#stuck.set(disk, reason);
    const all = [...this.#stuck].map(([id, why]) => `disk ${id}: ${why}`);
    this.onStuck(all.length === 0 ? null : all.join("; "));
  }

  #failed(error: unknown): void {
    this.#ports.logger.error({ err: error }, "a lazy disk does not arrive");
    this.onFailed(error);
  }
}

const UNREADABLE: KeptDisks = {
  // No hand-over has this: nobody is admitted.
  claim: { migrationId: "", epoch: 0, generation: 0, incarnation: "" },
  hashSeed: "",
  disks: [],
};

function partOf(kept: KeptDisk, sizeBytes: number, created: CreatedImage | null): Part {
  const device = new AwaitedDevice(sizeBytes);
  return { kept, created, device, exported: null, lazy: null, whole: null };
}

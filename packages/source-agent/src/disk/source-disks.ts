/**
 * The disks of one guest during one migration: opened to be offered, put behind the agent once the
 * dest has accepted, and given back to the guest at the end, whatever the end is.
 */
import { basename, join } from "node:path";
import { DiskHashes } from "@vmferry/agent";
import { lockImage, type HeldSockets, type ImageFile, type ImageLock } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import {
  limits,
  type GuestDisk,
  type MigrationDisk,
  type MigrationDiskOptions,
} from "@vmferry/protocol";
import type { QmpClient } from "@vmferry/qemu";
import type { DiskEntry } from "../adapters/disk-entry.ts";
import { DiskInterposer } from "../adapters/disk-interposer.ts";
import type { FollowingDisk } from "../adapters/left-disks.ts";
import { exportNotePath } from "../adapters/export-note.ts";
import { DiskMirrorJob } from "../adapters/disk-mirror-job.ts";
import { LOST_FLUSH } from "../session/doubt-text.ts";
import { SessionError } from "../session/session-error.ts";
import { BitmapTracker } from "./bitmap-tracker.ts";
import { BloomTracker } from "./bloom-tracker.ts";
import type { DirtyTracker } from "./dirty-tracker.ts";
import { NO_COUNTS } from "./disk-counters.ts";
import { DiskFrames } from "./disk-frames.ts";
import { DiskTransfer, type DiskTransferOptions, type MovingDisk } from "./disk-transfer.ts";
import { MirroredDisk } from "./mirrored-disk.ts";
import { OpenDisk, type OfferedDisk, type OpenDiskOptions } from "./open-disk.ts";

/** Mirrored writes that may wait for the link, all disks together; beyond that they are marked. */
const MIRROR_QUEUE_BYTES_MAX = 4 * 1024 * 1024;
/** A look at a block in a Bloom filter; a bitmap takes next to nothing. */
const BLOOM_LOOK_MS = 1e-4;

/** What the transfer of the disks needs, and how they come to the agent. */
export interface BeginDisksOptions extends Omit<DiskTransferOptions, "disks"> {
  readonly qmp: QmpClient;
  /** Directory and first part of the names of the exports' sockets. */
  readonly socketPrefix: string;
  /** Where the sockets are that outlive the agent. */
  readonly sockets: HeldSockets;
  readonly hashSeed: string;
  readonly disk: Pick<MigrationDiskOptions, "tracker" | "writes">;
}

/** A disk that is copied, and the way by which it comes to the agent. */
interface Entered {
  readonly entry: DiskEntry;
  /** Whether the guest's own image may have lost something. */
  readonly isSuspect: () => boolean;
  lock: ImageLock | null;
}

export interface SourceDisksOptions extends OpenDiskOptions {
  /** The guest's own. */
  readonly guestDir: string;
}

export class SourceDisks {
  readonly #disks: readonly OpenDisk[];
  readonly #guestDir: string;
  readonly #entered: Entered[] = [];
  #transfer: DiskTransfer | null = null;
  #beginning: Promise<void> = Promise.resolve();

  private constructor(disks: readonly OpenDisk[], guestDir: string) {
    this.#disks = disks;
    this.#guestDir = guestDir;
  }

  static async open(
    definitions: readonly GuestDisk[],
    options: SourceDisksOptions,
  ): Promise<SourceDisks> {
    const opened: OpenDisk[] = [];
    try {
      for (const definition of definitions) opened.push(await OpenDisk.open(definition, options));
    } catch (error) {
      for (const disk of opened) await disk.close();
      throw error;
    }
    return new SourceDisks(opened, options.guestDir);
  }

  get offered(): OfferedDisk[] {
    return this.#disks.map(({ offered }) => offered);
  }

  /** Null where no disk is copied, and before `begin`. */
  get transfer(): DiskTransfer | null {
    return this.#transfer;
  }

  /** The images that the guest leaves behind when it goes. */
  get copied(): readonly { readonly path: string; readonly sizeBytes: number }[] {
    return this.#disks
      .filter(({ image }) => image !== null)
      .map(({ path, offered: { sizeBytes } }) => ({ path, sizeBytes }));
  }

  get anyToCopy(): boolean {
    return this.#disks.some(({ image, lazy }) => image !== null && !lazy);
  }

  /** Those that follow the guest. */
  get lazy(): readonly FollowingDisk[] {
    return this.#disks.flatMap(({ definition: { id }, path, offered, lazy }, index) => {
      const { sizeBytes, blockBytes } = offered;
      const unitBytes = Math.min(blockBytes, limits.FRAME_DISK_BYTES_MAX);
      return lazy ? [{ id, index, path, sizeBytes, unitBytes }] : [];
    });
  }

  /** From its end on every write to a disk that is copied passes through the agent. */
  begin(options: BeginDisksOptions): Promise<void> {
    this.#beginning = this.#begin(options);
    return this.#beginning;
  }

  /** Of every disk, those that are not copied included. */
  progress(): MigrationDisk[] {
    return this.#disks.map(({ definition: { id, mode }, offered, lazy }) => {
      const moving = this.#transfer?.disks.find((each) => each.id === id);
      if (moving === undefined) {
        const { sizeBytes: totalBytes } = offered;
        return { ...NOTHING, id, mode, totalBytes, remainingBytes: lazy ? totalBytes : 0 };
      }
      const { disk, blockBytes } = moving;
      const { plan, counters } = disk;
      const rest = (plan.roundBlocks + plan.markedBlocks + plan.heldBlocks) * blockBytes;
      return {
        id,
        mode,
        totalBytes: disk.sizeBytes,
        ...counters,
        remainingBytes: Math.min(disk.sizeBytes, rest),
        heldBytes: plan.heldBlocks * blockBytes,
        round: plan.round,
      };
    });
  }

  /** The guest may write again; its requests still pass here until `leave`. */
  release(): void {
    this.#transfer?.release();
  }

  /** The guest stands still: nothing more is written to any disk once this resolves. */
  async settle(): Promise<void> {
    await Promise.all(this.#entered.map(({ entry }) => entry.settle()));
  }

  /** Something that the guest wrote may never get to one of its images, whoever flushes it. */
  get suspect(): boolean {
    return this.#disks.some(({ image, spooled }) => !spooled && image?.suspect === true);
  }

  /**
   * Gives the disks back to a guest that is to run here. Rejects when that cannot be done. The guest
   * has to stand still where one of its images is suspect.
   */
  async leave(): Promise<void> {
    // What was begun is undone as a whole.
    await this.#beginning.catch(() => undefined);
    this.#transfer?.release();
    if (this.suspect) {
      for (const { disk } of this.#transfer?.disks ?? []) disk.giveUpFlushes();
    }
    for (const entered of this.#entered) {
      await entered.lock?.unlock();
      entered.lock = null;
      // A write that failed, too, or what could not be written down before.
      if (entered.isSuspect()) await entered.entry.suspected();
      await entered.entry.leave();
    }
    await this.#closeImages();
  }

  /** The guest's QEMU is gone. */
  async close(): Promise<void> {
    await this.#beginning.catch(() => undefined);
    this.#transfer?.stop();
    for (const { lock, entry } of this.#entered) {
      await lock?.unlock();
      await entry.close();
    }
    await this.#closeImages();
  }

  async #begin(options: BeginDisksOptions): Promise<void> {
    const entering = this.#disks.flatMap((open, index) => {
      const { image, definition, lazy } = open;
      if (image === null || lazy) return [];
      const notePath = exportNotePath(this.#guestDir, definition.id);
      const where = { socketPath: `${options.socketPrefix}-${index}.nbd`, notePath };
      const entry = entryOf(open, where, options);
      const moving = movingDisk({ open, image, index, entry }, options);
      return [{ id: definition.id, open, image, entry, moving }];
    });
    this.#transfer = new DiskTransfer({
      ...options,
      disks: entering.map(({ moving }) => moving),
    });
    options.transport.yieldTo(() => entering.some(({ moving }) => moving.disk.requests > 0));
    for (const { open, image, entry, moving } of entering) {
      const isSuspect = (): boolean => !open.spooled && image.suspect;
      const entered: Entered = { entry, isSuspect, lock: null };
      this.#entered.push(entered);
      moving.disk.startTracking();
      await entry.enter(moving.disk);
      // QEMU has let go of its own lock: nobody else may open the image meanwhile.
      if (!open.spooled) entered.lock = await lockImage(image);
    }
  }

  async #closeImages(): Promise<void> {
    for (const disk of this.#disks) await disk.close();
  }
}

const NOTHING = { ...NO_COUNTS, remainingBytes: 0, heldBytes: 0, round: 0 };

/** A raw image is stepped in front of; anything else is mirrored into a spool by QEMU itself. */
function entryOf(
  open: OpenDisk,
  where: { readonly socketPath: string; readonly notePath: string },
  options: BeginDisksOptions,
): DiskEntry {
  const { qmp, logger, sockets, onFailed } = options;
  const { socketPath, notePath } = where;
  const common = { qmp, diskId: open.definition.id, logger };
  // The mirror is to fail with its agent.
  if (open.spooled) return new DiskMirrorJob({ ...common, socketPath, onFailed });
  const heldPath = join(sockets.directory, basename(socketPath));
  return new DiskInterposer({ ...common, socketPath: heldPath, sockets, notePath });
}

interface Entering {
  readonly open: OpenDisk;
  readonly image: ImageFile;
  /** In the offer. */
  readonly index: number;
  readonly entry: DiskEntry;
}

function movingDisk(
  { open, image, index, entry }: Entering,
  options: BeginDisksOptions,
): MovingDisk {
  const { id } = open.definition;
  const { sizeBytes, blockBytes } = open.offered;
  const { transport, clock, onFailed } = options;
  const unitBytes = Math.min(blockBytes, limits.FRAME_DISK_BYTES_MAX);
  const hashes = new DiskHashes({ sizeBytes, unitBytes, seedHex: options.hashSeed });
  const frames = new DiskFrames(transport.frames, { disk: index, onFailed });
  const blocks = Math.ceil(sizeBytes / blockBytes);
  const makeTracker = (): DirtyTracker =>
    options.disk.tracker === "bloom" ? new BloomTracker(blocks) : new BitmapTracker(blocks);
  const disk = new MirroredDisk({
    image,
    frames,
    blockBytes,
    hashes,
    makeTracker,
    writes: options.disk.writes,
    empty: open.spooled,
    clock,
    behind: () => transport.queuedBytes + frames.openBytes > MIRROR_QUEUE_BYTES_MAX,
    caughtUp: () => transport.caughtUp(),
    isAway: () => transport.isAway,
    onFlushFailed: () =>
      entry.suspected().catch((error: unknown) => {
        options.logger.error({ disk: id, err: error }, "a failed flush could not be written down");
      }),
    onImageFailed: (error) => {
      const said = `disk ${id} failed a request of the guest: ${messageOf(error)}`;
      const detail = !open.spooled && image.suspect ? `${said}; ${LOST_FLUSH}` : said;
      onFailed(new SessionError(detail, { code: "source-disk-failed" }, { cause: error }));
    },
    onWrittenWhileHeld: (offset) => {
      const detail = `disk ${id} was written at ${offset} while the guest was held`;
      onFailed(new SessionError(detail, { code: "disk-written-while-held" }));
    },
  });
  const scanMs = options.disk.tracker === "bloom" ? blocks * BLOOM_LOOK_MS : 0;
  return { id, blockBytes, disk, frames, hashes, scanMs, filled: () => entry.filled };
}

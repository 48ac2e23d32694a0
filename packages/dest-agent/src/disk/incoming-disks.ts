/**
 * The images of a guest that is offered: made before it is accepted, and at the end either the
 * guest's or gone again.
 */
import { readFile, rm, stat } from "node:fs/promises";
import { DiskHashes, ProblemError } from "@vmferry/agent";
import { createImage, ImageError, MapFile, takeImage, type CreatedImage } from "@vmferry/block";
import { failpoint, messageOf, type Clock } from "@vmferry/core";
import { limits, type ControlMessageOf, type GuestDisk, type ProblemCode } from "@vmferry/protocol";
import { hasFileOpen, resolveImage } from "@vmferry/qemu";
import type { LazyDisk } from "../adapters/kept-disks.ts";
import { ArrivingDisk } from "./arriving-disk.ts";
import { DiskError } from "./disk-failure.ts";
import { DiskReceiver } from "./disk-receiver.ts";

type Offer = ControlMessageOf<"offer">;
type OfferedDisk = Offer["disks"][number];

/** An image that was made for a disk of which nothing comes before the guest. */
export interface EmptyDisk {
  readonly disk: LazyDisk;
  readonly created: CreatedImage;
}

export interface IncomingDisksOptions {
  readonly definitions: readonly GuestDisk[];
  readonly offer: Offer;
  readonly imageDir: string;
  /** The process of a QEMU that was prepared: whoever did has made the images. Null without one. */
  readonly preparedPid: number | null;
  readonly compression: boolean;
  readonly clock: Clock;
  readonly onFailed: (error: unknown) => void;
}

/**
 * Of all disks of an offer, 8 bytes and a few bits being kept for each: how much memory that takes
 * must not be for the peer to choose. 16 TiB have so many units of 256 KiB.
 */
const UNITS_MAX = 2 ** 26;

const CODES: Readonly<Record<ImageError["detail"]["code"], ProblemCode>> = {
  "image-exists": "dest-disk-exists",
  "image-incomplete": "dest-disk-exists",
  "image-locked": "dest-disk-unsuitable",
  "image-no-space": "dest-disk-full",
  "image-not-usable": "dest-disk-unsuitable",
};

export class IncomingDisks {
  /** Null where no disk is copied. */
  readonly receiver: DiskReceiver | null;
  /** Disks that follow the guest. */
  readonly lazy: readonly EmptyDisk[];
  readonly #created: readonly CreatedImage[];
  readonly #isPrepared: boolean;

  private constructor(
    receiver: DiskReceiver | null,
    created: readonly CreatedImage[],
    { lazy, isPrepared }: { readonly lazy: readonly EmptyDisk[]; readonly isPrepared: boolean },
  ) {
    this.receiver = receiver;
    this.#created = created;
    this.#isPrepared = isPrepared;
    this.lazy = lazy;
  }

  /**
   * Rejects with `dest-disk-…` or `prepared-qemu-differs`; then nothing that was made stays, and what
   * was prepared does.
   */
  static async prepare(options: IncomingDisksOptions): Promise<IncomingDisks> {
    const { definitions, offer } = options;
    if (offer.disks.length !== definitions.length) {
      throw new DiskError("the offer describes other disks than the guest has", {
        code: "protocol-violation",
      });
    }
    checkUnits(offer.disks);
    const isPrepared = options.preparedPid !== null;
    const created: CreatedImage[] = [];
    const lazy: EmptyDisk[] = [];
    const arriving: (ArrivingDisk | null)[] = [];
    try {
      for (const [index, definition] of definitions.entries()) {
        const image = await prepareOne(definition, offer.disks[index]!, options);
        const offered = offer.disks[index]!;
        if (image !== null && offered.lazy === true) {
          lazy.push({ disk: lazyDiskOf(definition, offered, index), created: image });
        } else if (image !== null) created.push(image);
        const copied = image !== null && definition.mode === "copy" && offered.lazy !== true;
        arriving.push(copied ? arrivingDisk(definition.id, image, index, options) : null);
      }
    } catch (error) {
      const all = [...created, ...lazy.map((disk) => disk.created)];
      for (const image of all) await (isPrepared ? giveBack(image) : discard(image));
      throw error;
    }
    const any = arriving.some((disk) => disk !== null);
    const receiver = any ? new DiskReceiver(arriving, offer.bulkConnections) : null;
    return new IncomingDisks(receiver, created, { lazy, isPrepared });
  }

  /** The images are whole, and the guest's QEMU is going to lock them. */
  async unlock(): Promise<void> {
    failpoint("images.unlock.before");
    for (const { lock } of this.#created) await lock.unlock();
    failpoint("images.unlock.after");
  }

  /** The guest is ours: its images are ordinary ones from now on. */
  async keep(): Promise<void> {
    await this.receiver?.stop();
    failpoint("images.keep.before");
    for (const { image, mark } of this.#created) {
      await image.close();
      await mark.remove();
    }
    failpoint("images.keep.after");
  }

  /**
   * No QEMU has come to them. One that was prepared still waits over its images: another file at the
   * path of one would be filled by the next offer, and be none of the guest's.
   */
  async giveUp(): Promise<void> {
    if (!this.#isPrepared) {
      await this.discard();
      return;
    }
    await this.receiver?.stop();
    for (const image of this.#created) await giveBack(image);
  }

  /** The guest is refused, its QEMU gone, and what is lazy abandoned. Resolves when nothing of its images is left. */
  async discard(): Promise<void> {
    await this.receiver?.stop();
    failpoint("images.discard.before");
    for (const image of [...this.#created, ...this.lazy.map(({ created }) => created)]) {
      await discard(image);
    }
    failpoint("images.discard.after");
  }
}

/** Null for a shared disk, of which nothing is made here. */
async function prepareOne(
  definition: GuestDisk,
  offered: OfferedDisk,
  { offer, imageDir, preparedPid: pid }: IncomingDisksOptions,
): Promise<CreatedImage | null> {
  const { id, image: name, mode } = definition;
  const { sizeBytes, dataBytes, blockBytes, lazy } = offered;
  if (lazy === true && (mode !== "copy" || definition.format !== "raw")) {
    throw new DiskError(`disk ${id}: only a raw disk that is copied can be lazy`, {
      code: "protocol-violation",
    });
  }
  if (mode === "shared") {
    await checkShared(definition, offered, { imageDir, migrationId: offer.migrationId });
    const { path } = await resolveImage({ imageDirectory: imageDir, name });
    if (pid !== null) refuseOtherFile({ pid, path, name });
    return null;
  }
  if (Math.log2(blockBytes) % 1 !== 0) {
    throw new DiskError(`disk ${id}: the size of its blocks is no power of two`, {
      code: "protocol-violation",
    });
  }
  const { migrationId, epoch } = offer;
  try {
    const about = {
      directory: imageDir,
      name,
      sizeBytes,
      needBytes: mode === "copy" ? dataBytes : 0,
      mark: { blockBytes: unitBytesOf(blockBytes), migrationId, epoch },
    };
    if (pid === null) {
      const created = await createImage(about);
      if (mode === "scratch") await empty(created, discard);
      return created;
    }
    const checkUser = (path: string): void => {
      refuseOtherFile({ pid, path, name });
    };
    const taken = await takeImage({ ...about, checkUser });
    if (mode === "scratch") await empty(taken, giveBack);
    return taken;
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    const code = error instanceof ImageError ? CODES[error.code] : "dest-disk-unsuitable";
    throw new DiskError(`disk ${id}: ${messageOf(error)}`, { code }, { cause: error });
  }
}

/** Nothing is going to fill it: it is whole as it is. */
async function empty(
  created: CreatedImage,
  undo: (created: CreatedImage) => Promise<void>,
): Promise<void> {
  try {
    await created.mark.complete();
  } catch (error) {
    await undo(created);
    throw error;
  }
}

/**
 * A QEMU that was started over another file, which was removed or replaced since, would run its guest
 * on that one, whatever arrives in the file that is there now.
 */
function refuseOtherFile({
  pid,
  path,
  name,
}: {
  readonly pid: number;
  readonly path: string;
  readonly name: string;
}): void {
  if (hasFileOpen(pid, path)) return;
  throw new ProblemError(
    `The QEMU that was prepared (process ${pid}) does not have the image ${name} open that is there ` +
      "now: it was removed or replaced after QEMU was started. Start that QEMU again over the image.",
    { code: "prepared-qemu-differs" },
  );
}

function checkUnits(disks: readonly OfferedDisk[]): void {
  let units = 0;
  for (const { sizeBytes, blockBytes } of disks) units += sizeBytes / unitBytesOf(blockBytes);
  if (units <= UNITS_MAX) return;
  const tib = (UNITS_MAX * limits.FRAME_DISK_BYTES_MAX) / 2 ** 40;
  throw new DiskError(`the guest's disks are larger than ${tib} TiB together`, {
    code: "dest-disk-unsuitable",
  });
}

/**
 * The same file on both hosts: the source has put a file with a secret beside it, which must be
 * seen here beside an image of the same name and size.
 */
export async function checkShared(
  { id, image: name }: GuestDisk,
  { sizeBytes, proof }: Pick<OfferedDisk, "sizeBytes" | "proof">,
  { imageDir, migrationId }: { readonly imageDir: string; readonly migrationId: string },
): Promise<void> {
  const unsuitable = (why: string, cause?: unknown): DiskError =>
    new DiskError(
      `disk ${id} (${name}) is not the source's file: ${why}; mode "shared" needs the same ` +
        "directory on both hosts",
      { code: "dest-disk-unsuitable" },
      { cause },
    );
  try {
    const { path, kind } = await resolveImage({ imageDirectory: imageDir, name });
    if (kind === "file" && (await stat(path)).size !== sizeBytes) {
      throw unsuitable("its size differs");
    }
    const seen = await readFile(`${path}.vmferry-proof-${migrationId}`, "utf8");
    if (seen !== proof) throw unsuitable("the source's proof beside it differs");
  } catch (error) {
    if (error instanceof DiskError) throw error;
    throw unsuitable(messageOf(error), error);
  }
}

function arrivingDisk(
  id: string,
  { image, mark, isZero }: CreatedImage,
  index: number,
  options: IncomingDisksOptions,
): ArrivingDisk {
  const { sizeBytes, blockBytes } = options.offer.disks[index]!;
  const unitBytes = unitBytesOf(blockBytes);
  const hashes = new DiskHashes({ sizeBytes, unitBytes, seedHex: options.offer.hashSeed });
  // What a device held before is not known until it is read, or the source has told of it.
  if (!isZero) hashes.openAll();
  const { compression, clock, onFailed } = options;
  return new ArrivingDisk({ id, image, mark, hashes, compression, clock, onFailed });
}

function lazyDiskOf(
  { id, image }: GuestDisk,
  { blockBytes }: OfferedDisk,
  index: number,
): LazyDisk {
  return { id, image, index, unitBytes: unitBytesOf(blockBytes) };
}

/** As the source has it: what is hashed as one fits one frame. */
function unitBytesOf(blockBytes: number): number {
  return Math.min(blockBytes, limits.FRAME_DISK_BYTES_MAX);
}

/** Nothing was written to it: it is as it was made by whoever prepared it. */
async function giveBack({ image, mark }: CreatedImage): Promise<void> {
  await image.close();
  // A device may have had one before, and hold half of something.
  if (image.kind === "file") await mark.remove();
}

async function discard({ image, mark }: CreatedImage): Promise<void> {
  await image.close();
  // A device stays with whatever was written to it, and with the mark that says so.
  if (image.kind !== "file") return;
  await rm(image.path, { force: true });
  await MapFile.remove(image.path);
  await mark.remove();
}

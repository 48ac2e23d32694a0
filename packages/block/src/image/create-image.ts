/**
 * Makes the image that a migration fills, or takes the block device that is there for it, and
 * returns it locked. Where several come for one name, be they of one agent or of two, the lock of
 * the file decides: whoever has it makes sure that the file is still the one that others find.
 *
 *   new file, no bytes ──lock──▶ mark ──▶ size ──▶ ready
 *   leftover with mark ──lock──▶ no bytes ──▶ mark ──▶ size ──▶ ready
 *
 * An image that has bytes but no mark is thus never one that was begun here. A mark says that the
 * image may be emptied, unless it says `whole` or `lazy`: a guest could have been started on it.
 */
import { lstat, open, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { assert, messageOf } from "@vmferry/core";
import { checkFreeSpace } from "./free-space.ts";
import {
  closeDescriptor,
  isDescriptorAt,
  openImageDescriptor,
  refuseClaimedDevice,
  statDescriptor,
  syncDescriptor,
  truncateDescriptor,
  type ImageDescriptor,
} from "./image-descriptor.ts";
import { ImageError, imageNotUsable } from "./image-error.ts";
import { ImageFile, STAT_BLOCK_BYTES } from "./image-file.ts";
import { ImageLock, lockDescriptor, refuseLocked } from "./image-lock.ts";
import type { MarkSubject } from "./mark-codec.ts";
import { newImagePath } from "./new-image-path.ts";
import { checkOwnFile } from "./own-file.ts";
import { checkMarkPlace, PartialMark } from "./partial-mark.ts";
import { syncDirectory } from "./sync-directory.ts";

export interface CreateImageOptions {
  readonly directory: string;
  /** Of a file inside the directory; a subdirectory in it has to exist. */
  readonly name: string;
  readonly sizeBytes: number;
  /** What of the size is going to take space. */
  readonly needBytes: number;
  readonly mark: Omit<MarkSubject, "imageBytes">;
}

/** Whoever gets it closes the image, which lets go of the lock. */
export interface CreatedImage {
  readonly image: ImageFile;
  readonly lock: ImageLock;
  readonly mark: PartialMark;
  /** A new file reads as zeros, a device holds whatever it held. */
  readonly isZero: boolean;
}

/**
 * Rejects with `image-exists` for a file that has no mark or one that says `whole` or `lazy`, and with
 * `image-locked`, `image-no-space` or `image-not-usable`. What is left behind then is what was
 * there before, or a leftover as before, or an empty file.
 */
export async function createImage(options: CreateImageOptions): Promise<CreatedImage> {
  const { directory, name, sizeBytes } = options;
  assert(Number.isSafeInteger(sizeBytes) && sizeBytes > 0, "an image has a size");
  const path = await newImagePath(directory, name);
  try {
    const isNew = await makeEmptyFile(path, options.needBytes);
    return await prepareLocked(path, isNew, options);
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw imageNotUsable(path, messageOf(cause), cause);
  }
}

/**
 * Rejects as `createImage` would, as it is at the moment: nothing is changed, nor locked.
 * Resolves with the bytes of a leftover, which are free once it is emptied; null for a device.
 */
export async function checkNewImage({
  directory,
  name,
  sizeBytes,
}: Pick<CreateImageOptions, "directory" | "name" | "sizeBytes">): Promise<number | null> {
  const path = await newImagePath(directory, name);
  try {
    if (!(await isTaken(path))) return 0;
    const opened = await openImageDescriptor(path, true);
    try {
      await refuseLocked(opened.fd, path);
      await refuseForeign(opened);
      if (opened.kind === "file") return await leftoverBytes(opened);
      checkDeviceSize(opened, sizeBytes);
      await refuseClaimedDevice(path);
      return null;
    } finally {
      await closeDescriptor(opened.fd);
    }
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw imageNotUsable(path, messageOf(cause), cause);
  }
}

/** False where something is at the path. */
async function makeEmptyFile(path: string, needBytes: number): Promise<boolean> {
  if (await isTaken(path)) return false;
  await checkFreeSpace(dirname(path), { needBytes, soonFreeBytes: 0 });
  try {
    const handle = await open(path, "wx", 0o600);
    await handle.close();
    return true;
  } catch (error) {
    // Another one was quicker, and the lock is going to say which of the two goes on.
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function isTaken(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

async function prepareLocked(
  path: string,
  isNew: boolean,
  options: CreateImageOptions,
): Promise<CreatedImage> {
  const opened = await openImageDescriptor(path, false);
  let isOurs = false;
  try {
    const locked = await lock(opened);
    isOurs = isNew && locked.sizeBytes === 0;
    await refuseForeign(locked);
    if (opened.kind === "host-device") {
      checkDeviceSize(opened, options.sizeBytes);
      await refuseClaimedDevice(path);
    } else if (!isOurs) await emptyLeftover(opened, options.needBytes);
    const subject = { ...options.mark, imageBytes: options.sizeBytes };
    const mark = await PartialMark.replace(path, subject);
    if (opened.kind === "file") await growFile(opened, options.sizeBytes);
    const image = new ImageFile({ ...opened, sizeBytes: options.sizeBytes });
    return { image, lock: new ImageLock(image), mark, isZero: image.kind === "file" };
  } catch (error) {
    // A file without bytes that cannot be removed either harms nobody.
    if (isOurs) await unlink(path).catch(() => undefined);
    await closeDescriptor(opened.fd);
    throw error;
  }
}

async function lock(opened: ImageDescriptor): Promise<ImageDescriptor> {
  const { fd, path, kind } = opened;
  await lockDescriptor(fd, path);
  if (!(await isDescriptorAt(fd, path))) {
    throw imageNotUsable(path, "it was replaced while it was locked");
  }
  if (kind === "host-device") return opened;
  // Who had the lock before may have changed the size since the opening.
  return { ...opened, sizeBytes: Number((await statDescriptor(fd)).size) };
}

async function refuseForeign({ path, kind, sizeBytes }: ImageDescriptor): Promise<void> {
  await checkMarkPlace(path);
  if (kind === "file" && sizeBytes === 0) return;
  const mark = await PartialMark.read(path);
  if (mark === null && kind === "file") throw imageExists(path, "it has no mark beside it");
  if (mark instanceof PartialMark && (mark.state === "whole" || mark.state === "lazy")) {
    throw imageExists(path, `the mark beside it says that it is ${mark.state}`);
  }
}

function checkDeviceSize({ path, sizeBytes }: ImageDescriptor, wantedBytes: number): void {
  if (sizeBytes === wantedBytes) return;
  throw imageNotUsable(path, `it has ${sizeBytes} bytes and has to have ${wantedBytes}`);
}

async function emptyLeftover(opened: ImageDescriptor, needBytes: number): Promise<void> {
  const soonFreeBytes = await leftoverBytes(opened);
  await checkFreeSpace(dirname(opened.path), { needBytes, soonFreeBytes });
  await truncateDescriptor(opened.fd, 0);
}

async function leftoverBytes({ fd, path }: ImageDescriptor): Promise<number> {
  await checkOwnFile(path);
  const { blocks, nlink } = await statDescriptor(fd);
  if (nlink !== 1n) throw imageExists(path, "it has another name too");
  return Number(blocks) * STAT_BLOCK_BYTES;
}

async function growFile({ fd, path }: ImageDescriptor, sizeBytes: number): Promise<void> {
  await truncateDescriptor(fd, sizeBytes);
  await syncDescriptor(fd);
  await syncDirectory(dirname(path));
}

function imageExists(path: string, reason: string): ImageError {
  return new ImageError(`the image ${path} exists: ${reason}`, {
    code: "image-exists",
    path,
    reason,
  });
}

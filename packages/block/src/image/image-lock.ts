/**
 * The locks by which programs of the QEMU family know of each other, as in its block/file-posix.c:
 * one byte of the image for each permission that somebody uses, one for each that somebody does not
 * let others use, all as read locks of the open file, so that only a look tells of the others.
 * Everybody takes its own first and looks then: of two that come at once, one at least sees the
 * other and gives way.
 */
import { messageOf } from "@vmferry/core";
import { BlockError } from "../block-error.ts";
import { ImageError, imageNotUsable, type ImagePermission } from "./image-error.ts";
import type { ImageFile } from "./image-file.ts";
import { isLockedByOthers, setOfdLock } from "./libc.ts";

const USED_AT = 100;
const NOT_SHARED_AT = 200;
const PERMISSION_BITS: Readonly<Record<ImagePermission, number>> = { read: 0, write: 1, resize: 3 };

/** What somebody uses of an image, and what it does not let others use. */
interface Claim {
  readonly used: readonly ImagePermission[];
  readonly notShared: readonly ImagePermission[];
}

const ONLY_WRITER: Claim = { used: ["read", "write", "resize"], notShared: ["write", "resize"] };
const READER_OF_STILL_IMAGE: Claim = { used: ["read"], notShared: ["write", "resize"] };

/** Held until `unlock`, the close of the image, or the end of the process. */
export class ImageLock {
  readonly #image: ImageFile;

  /** Of an image whose descriptor is locked. */
  constructor(image: ImageFile) {
    this.#image = image;
  }

  async unlock(): Promise<void> {
    try {
      await this.#image.withDescriptor("unlock", release);
    } catch (error) {
      // The close has let go of it already.
      if (error instanceof BlockError && error.detail.errno === "ESHUTDOWN") return;
      throw error;
    }
  }
}

/**
 * Makes this the only writer of the image. Rejects with `image-locked` where another open file,
 * be it of this process, writes to it or does not let others write; with `image-not-usable` where
 * the file system has no locks.
 */
export async function lockImage(image: ImageFile): Promise<ImageLock> {
  await image.withDescriptor("lock", (fd) => lockDescriptor(fd, image.path));
  return new ImageLock(image);
}

/**
 * Keeps everybody from writing to the image; others may read it, and keep it still as well. Rejects as
 * `lockImage` does, with `image-locked` where somebody writes to it already.
 */
export async function lockImageStill(image: ImageFile): Promise<ImageLock> {
  const claim = READER_OF_STILL_IMAGE;
  await image.withDescriptor("lock", (fd) => claimDescriptor(fd, image.path, claim));
  return new ImageLock(image);
}

/** As `lockImage`, before there is an ImageFile. `path` is for the error alone. */
export function lockDescriptor(fd: number, path: string): Promise<void> {
  return claimDescriptor(fd, path, ONLY_WRITER);
}

async function claimDescriptor(fd: number, path: string, claim: Claim): Promise<void> {
  let conflict: ImagePermission | null;
  try {
    for (const offset of bytesOf(claim)) await setOfdLock(fd, "read", { offset, length: 1 });
    conflict = await findConflict(fd, claim);
    if (conflict !== null) await release(fd);
  } catch (cause) {
    await release(fd).catch(() => undefined);
    throw imageNotUsable(path, `it cannot be locked: ${messageOf(cause)}`, cause);
  }
  refuseConflict(conflict, path);
}

/** Rejects as `lockDescriptor` would, and takes nothing. */
export async function refuseLocked(fd: number, path: string): Promise<void> {
  let conflict: ImagePermission | null;
  try {
    conflict = await findConflict(fd, ONLY_WRITER);
  } catch (cause) {
    throw imageNotUsable(path, `its locks cannot be looked at: ${messageOf(cause)}`, cause);
  }
  refuseConflict(conflict, path);
}

function refuseConflict(conflict: ImagePermission | null, path: string): void {
  if (conflict === null) return;
  throw new ImageError(`the image ${path} is in use: another program claims it (${conflict})`, {
    code: "image-locked",
    path,
    permission: conflict,
  });
}

async function findConflict(
  fd: number,
  { used, notShared }: Claim,
): Promise<ImagePermission | null> {
  for (const permission of used) {
    const offset = NOT_SHARED_AT + PERMISSION_BITS[permission];
    if (await isLockedByOthers(fd, { offset, length: 1 })) return permission;
  }
  for (const permission of notShared) {
    const offset = USED_AT + PERMISSION_BITS[permission];
    if (await isLockedByOthers(fd, { offset, length: 1 })) return permission;
  }
  return null;
}

/** Whatever was claimed. */
async function release(fd: number): Promise<void> {
  for (const offset of bytesOf(ONLY_WRITER)) await setOfdLock(fd, "none", { offset, length: 1 });
}

function bytesOf({ used, notShared }: Claim): readonly number[] {
  return [
    ...used.map((permission) => USED_AT + PERMISSION_BITS[permission]),
    ...notShared.map((permission) => NOT_SHARED_AT + PERMISSION_BITS[permission]),
  ];
}

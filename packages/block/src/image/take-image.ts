/**
 * Takes an image that somebody else has made for a migration to fill, because a QEMU that is to use
 * it has it open already. It has to be as a new one would be: of the right size, without a mark, and
 * with nothing in it, for whatever it held is lost.
 */
import { dirname } from "node:path";
import { createImage, type CreatedImage, type CreateImageOptions } from "./create-image.ts";
import { checkFreeSpace } from "./free-space.ts";
import { ImageError, imageNotUsable } from "./image-error.ts";
import { ImageFile } from "./image-file.ts";
import { lockImage } from "./image-lock.ts";
import { newImagePath } from "./new-image-path.ts";
import { checkMarkPlace, PartialMark } from "./partial-mark.ts";

/** Programs that make images write the first blocks of some, to see what the file system is like. */
const ALLOCATED_BYTES_MAX = 64 * 1024;

export interface TakeImageOptions extends CreateImageOptions {
  /**
   * Throws where whoever is to use the image has not the file open to which this path leads: it is
   * that of a descriptor, so that nobody can step between.
   */
  readonly checkUser: (path: string) => void;
}

/**
 * A block device is taken as `createImage` does. Rejects as `checkUser` throws, with `image-exists` for
 * a file that holds anything or has a mark, and with `image-locked`, `image-no-space` or
 * `image-not-usable`.
 */
export async function takeImage(options: TakeImageOptions): Promise<CreatedImage> {
  const { directory, name, sizeBytes, needBytes } = options;
  const path = await newImagePath(directory, name);
  const image = await ImageFile.open(path);
  try {
    await image.withDescriptor("look", (fd) => {
      options.checkUser(`/proc/self/fd/${fd}`);
      return Promise.resolve();
    });
    if (image.kind === "host-device") {
      await image.close();
      return await createImage(options);
    }
    const lock = await lockImage(image);
    if (image.sizeBytes !== sizeBytes) {
      const reason = `it has ${image.sizeBytes} bytes and has to have ${sizeBytes}`;
      throw imageNotUsable(path, reason);
    }
    await checkMarkPlace(path);
    if ((await PartialMark.read(path)) !== null) throw exists(path, "it has a mark beside it");
    if (!(await isEmpty(image))) {
      throw exists(path, "it holds something, and what arrives needs an empty one");
    }
    await checkFreeSpace(dirname(path), { needBytes, soonFreeBytes: 0 });
    const mark = await PartialMark.replace(path, { ...options.mark, imageBytes: sizeBytes });
    return { image, lock, mark, isZero: true };
  } catch (error) {
    await image.close();
    throw error;
  }
}

async function isEmpty(image: ImageFile): Promise<boolean> {
  if ((await image.allocatedBytes()) > ALLOCATED_BYTES_MAX) return false;
  for (let offset = 0; offset < image.sizeBytes;) {
    const extents = await image.extents(offset, image.sizeBytes - offset);
    for (const { kind, offset: from, length } of extents) {
      offset = from + length;
      if (kind === "zero") continue;
      // A file system that cannot tell holes from data says that all of it is data.
      if (length > ALLOCATED_BYTES_MAX) return false;
      if ((await image.read(from, length)).some((byte) => byte !== 0)) return false;
    }
  }
  return true;
}

function exists(path: string, reason: string): ImageError {
  return new ImageError(`the image ${path} exists: ${reason}`, {
    code: "image-exists",
    path,
    reason,
  });
}

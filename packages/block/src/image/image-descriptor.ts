import { close, constants, fstat, fsync, ftruncate, lstat, open, type BigIntStats } from "node:fs";
import { promisify } from "node:util";
import { deviceSizeBytes, prepareSystemCalls } from "./libc.ts";

export interface ImageDescriptor {
  readonly fd: number;
  readonly path: string;
  readonly readOnly: boolean;
  readonly kind: "file" | "host-device";
  readonly sizeBytes: number;
}

const openDescriptor = promisify(open);
const lstatPath = promisify(lstat);
export const closeDescriptor = promisify(close);
export const syncDescriptor = promisify(fsync);
export const truncateDescriptor = promisify(ftruncate);

/** Opens a regular file or a block device and nothing else. */
export async function openImageDescriptor(
  path: string,
  readOnly: boolean,
): Promise<ImageDescriptor> {
  await prepareSystemCalls();
  // Opening a character device or a FIFO can have effects of its own: not even tried.
  const isDevice = isBlockDevice(await lstatPath(path));
  const { O_RDONLY, O_RDWR, O_NOFOLLOW, O_NONBLOCK } = constants;
  const access = readOnly ? O_RDONLY : O_RDWR;
  // O_NONBLOCK: nor does a FIFO that takes the file's place right now hold up a thread.
  const fd = await openDescriptor(path, access | O_NOFOLLOW | O_NONBLOCK, 0);
  try {
    const stats = await statDescriptor(fd);
    if (isBlockDevice(stats) !== isDevice) throw new Error("it changed while it was opened");
    const kind = isDevice ? "host-device" : "file";
    const sizeBytes = isDevice ? await deviceSizeBytes(fd) : Number(stats.size);
    return { fd, path, readOnly, kind, sizeBytes };
  } catch (error) {
    await closeDescriptor(fd);
    throw error;
  }
}

/** Claims of this process take turns: each would refuse the other. */
let claiming: Promise<unknown> = Promise.resolve();

/**
 * Rejects with EBUSY for a device that is mounted or part of another. The claim is let go of at once:
 * while somebody holds one, the kernel refuses everybody else to discard or zero the device, and
 * QEMU, which claims nothing, would stop its guest.
 */
export function refuseClaimedDevice(path: string): Promise<void> {
  const { O_RDWR, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;
  const claim = claiming.then(async () => {
    await closeDescriptor(await openDescriptor(path, O_RDWR | O_EXCL | O_NOFOLLOW | O_NONBLOCK, 0));
  });
  claiming = claim.catch(() => undefined);
  return claim;
}

/** With exact numbers: those of inodes and devices may be beyond 2^53. */
export function statDescriptor(fd: number): Promise<BigIntStats> {
  return new Promise((resolve, reject) => {
    fstat(fd, { bigint: true }, (error, stats) => {
      if (error === null) resolve(stats);
      else reject(error);
    });
  });
}

/** Whether the file at `path` is the open one: not removed, nor replaced by another. */
export async function isDescriptorAt(fd: number, path: string): Promise<boolean> {
  const opened = await statDescriptor(fd);
  return new Promise((resolve, reject) => {
    lstat(path, { bigint: true }, (error, found) => {
      if (error === null) resolve(found.dev === opened.dev && found.ino === opened.ino);
      else if (error.code === "ENOENT") resolve(false);
      else reject(error);
    });
  });
}

function isBlockDevice(stats: { isBlockDevice(): boolean; isFile(): boolean }): boolean {
  if (stats.isBlockDevice()) return true;
  if (stats.isFile()) return false;
  throw new Error("it is neither a regular file nor a block device");
}

import { statfs } from "node:fs/promises";
import { ImageError } from "./image-error.ts";

const MARGIN_BYTES_MIN = 64 * 2 ** 20;
const MARGIN_PART = 0.01;

/**
 * Rejects with `image-no-space` where `needBytes` and a margin are not free. `soonFreeBytes` are
 * those of what is about to be removed.
 */
export async function checkFreeSpace(
  directory: string,
  { needBytes, soonFreeBytes }: { readonly needBytes: number; readonly soonFreeBytes: number },
): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const freeBytes = bavail * bsize + soonFreeBytes;
  const marginBytes = Math.max(MARGIN_BYTES_MIN, Math.ceil(needBytes * MARGIN_PART));
  if (freeBytes >= needBytes + marginBytes) return;
  throw new ImageError(
    `the image needs ${needBytes} bytes and ${marginBytes} to spare, ` +
      `and ${directory} has ${freeBytes} free`,
    { code: "image-no-space", directory, needBytes, marginBytes, freeBytes },
  );
}

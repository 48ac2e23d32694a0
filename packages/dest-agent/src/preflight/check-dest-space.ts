import { fails, passes, skips, type Finding } from "@vmferry/agent";
import { checkFreeSpace, checkNewImage } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import type { ProbedDisk } from "./probed-guest.ts";

const HINT = "Free space in the image directory of the destination.";

/** All disks together have to fit, which an offer sees only while it makes them one by one. */
export async function checkDestSpace(
  disks: readonly ProbedDisk[],
  imageDir: string,
): Promise<Finding> {
  let needBytes = 0;
  let soonFreeBytes = 0;
  for (const { disk, offered } of disks) {
    if (disk.mode !== "copy") continue;
    const { sizeBytes, dataBytes } = offered;
    const place = { directory: imageDir, name: disk.image, sizeBytes };
    // Where there is no place for it, that is said by another check.
    const leftover = await checkNewImage(place).catch(() => 0);
    if (leftover === null) continue;
    needBytes += dataBytes;
    soonFreeBytes += leftover;
  }
  if (needBytes === 0) return skips("Nothing would take space.");
  try {
    await checkFreeSpace(imageDir, { needBytes, soonFreeBytes });
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
  return passes(`The destination has the ${needBytes} bytes that the disks take.`);
}

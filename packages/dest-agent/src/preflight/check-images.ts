import { fails, passes, skips, type Finding } from "@vmferry/agent";
import { checkNewImage } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import type { ProbedDisk } from "./probed-guest.ts";

const HINT =
  "Move the image away that is in its place, or name the same file on both hosts and use mode shared.";

/** The names of what is to be made are free, or taken by a leftover. */
export async function checkImages(
  disks: readonly ProbedDisk[],
  imageDir: string,
): Promise<Finding> {
  const made = disks.filter(({ disk }) => disk.mode !== "shared");
  if (made.length === 0) return skips("No disk would be made.");
  for (const { disk, offered } of made) {
    const place = { directory: imageDir, name: disk.image, sizeBytes: offered.sizeBytes };
    try {
      await checkNewImage(place);
    } catch (error) {
      return fails(`disk ${disk.id}: ${messageOf(error)}`, HINT);
    }
  }
  return passes(`There is a place for ${made.map(({ disk }) => disk.image).join(", ")}.`);
}

import { fails, passes, skips, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { checkShared } from "../disk/incoming-disks.ts";
import type { ProbedDisk } from "./probed-guest.ts";

const HINT = "Mount the same directory on both hosts as the image directory, or use mode copy.";

/** As an offer is judged: the source has put a proof beside each of them. */
export async function checkSharedImages(
  disks: readonly ProbedDisk[],
  { imageDir, probeId }: { readonly imageDir: string; readonly probeId: string },
): Promise<Finding> {
  const shared = disks.filter(({ disk }) => disk.mode === "shared");
  if (shared.length === 0) return skips("No disk is shared.");
  for (const { disk, offered } of shared) {
    try {
      await checkShared(disk, offered, { imageDir, migrationId: probeId });
    } catch (error) {
      return fails(messageOf(error), HINT);
    }
  }
  return passes(`Both hosts see the same ${shared.map(({ disk }) => disk.image).join(", ")}.`);
}

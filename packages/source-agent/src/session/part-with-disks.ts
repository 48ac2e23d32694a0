/** What becomes of a guest's disks at the end of an attempt. */
import { markImagesLeft, type Guest, type Logger } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import type { SourceOwnership } from "@vmferry/protocol";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { SourceDisks } from "../disk/source-disks.ts";

const ATTEMPTS_MAX = 5;
const AGAIN_MS = 2000;

export interface PartWithDisksOptions {
  readonly disks: SourceDisks;
  readonly ownership: SourceOwnership;
  readonly migrationId: string;
  readonly guest: Guest;
  readonly qemu: SourceQemu;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * A guest that runs here gets them back; one that has gone leaves images that nobody may take for
 * its disks any more. While that is undecided the guest stands still, and its disks stay as they are.
 */
export async function partWithDisks(options: PartWithDisksOptions): Promise<void> {
  const { disks, ownership } = options;
  if (ownership.phase === "owner") await giveBack(options);
  if (ownership.phase !== "done") return;
  await disks.close();
  try {
    const { migrationId, logger } = options;
    await markImagesLeft(disks.copied, { migrationId, epoch: ownership.epoch });
    logger.debug("the images that the guest left are marked");
  } catch (error) {
    options.logger.error({ err: error }, "an image that the guest left could not be marked");
  }
}

/** Until its disks are its own again, the guest runs through the agent's export. */
async function giveBack(options: PartWithDisksOptions): Promise<void> {
  const { disks, guest, qemu, clock, logger } = options;
  for (let attempt = 1; guest.alive; attempt++) {
    try {
      await disks.leave();
      await qemu.retryFailedIo();
      return;
    } catch (error) {
      logger.error({ err: error, attempt }, "the guest's disks stay behind the agent");
      if (attempt === ATTEMPTS_MAX) return;
      await new Promise<void>((resolve) => {
        clock.after(AGAIN_MS, resolve);
      });
    }
  }
  await disks.close();
}

/**
 * A disk is whole, and its guest's QEMU is to go on with the image alone. A QEMU whose image has failed
 * to store something stays behind the export for as long as it lives: a flush over the image itself
 * would succeed, and say that what is lost is there.
 */
import type { Logger } from "@vmferry/agent";
import type { ImageFile } from "@vmferry/block";
import { messageOf, sleep, type Clock } from "@vmferry/core";
import type { QmpClient } from "@vmferry/qemu";
import type { LazyExport } from "../adapters/lazy-export.ts";
import { DiskError } from "../disk/disk-failure.ts";

const AGAIN_MS = 2000;
/** One failure may be a matter of moments, such as the lock of an agent that was just killed. */
const TOLD_ATTEMPT = 2;

/** QEMU, which is to have the images in the end; a dead one needs none. */
export interface GuestOfDisks {
  /** Null where it is gone. */
  readonly qmp: QmpClient | null;
  readonly isAlive: () => boolean;
}

export interface WayToImage {
  readonly image: Pick<ImageFile, "kind" | "path">;
  /** QEMU is going to lock it. */
  readonly unlock: () => Promise<void>;
  /** It may have lost something that the guest wrote. */
  readonly isSuspect: () => boolean;
}

interface Leaving {
  readonly exported: Pick<LazyExport, "leave" | "close"> | null;
  /** Its id. */
  readonly disk: string;
  readonly guest: GuestOfDisks;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called once. */
  readonly onSuspect: (error: DiskError) => void;
  /** QEMU does not go on with the image alone, and is told to again; null when it has, or is gone. */
  readonly onStuck: (reason: string | null) => void;
}

/** Resolves when QEMU stands on the image, or is gone. */
export async function leaveExport(
  { exported, disk, guest: { qmp, isAlive }, clock, logger, onSuspect, onStuck }: Leaving,
  { isSuspect, ...way }: WayToImage,
): Promise<void> {
  let isTold = false;
  for (let attempt = 1; qmp !== null && isAlive(); attempt++) {
    if (isSuspect()) {
      if (!isTold) onSuspect(lostFlush(disk, way.image.path));
      isTold = true;
    } else {
      try {
        await exported!.leave({ qmp, ...way });
        onStuck(null);
        return;
      } catch (error) {
        logger.error({ disk, err: error, attempt }, "the guest's disk stays behind the agent");
        // What has failed may be the flush, after which nothing is tried again.
        if (isSuspect()) continue;
        if (attempt >= TOLD_ATTEMPT) onStuck(messageOf(error));
      }
    }
    await sleep(clock, AGAIN_MS);
  }
  onStuck(null);
  await exported?.close();
}

function lostFlush(disk: string, path: string): DiskError {
  const detail =
    `disk ${disk} failed to store what the guest wrote, and the next flush over ${path} would say that ` +
    "it is stored: no flush of the guest succeeds any more, and the guest stops with the next one. Look " +
    "at the disk, end the guest's QEMU, and start the guest anew from the image, which is as after a " +
    "power cut";
  return new DiskError(detail, { code: "dest-disk-failed" });
}

import { sleep, type Clock } from "@vmferry/core";
import type { MigrationDisk } from "@vmferry/protocol";
import type { LazyDisks } from "./lazy-disks.ts";

const REPORT_MS = 500;

/** Shows what of its disks follows a guest of an earlier life, until that is over. */
export async function followDisks(
  disks: Pick<LazyDisks, "progress">,
  options: {
    readonly clock: Clock;
    readonly show: (disks: MigrationDisk[]) => void;
    readonly isOver: () => boolean;
  },
): Promise<void> {
  while (!options.isOver()) {
    options.show(
      disks.progress.map(({ id, totalBytes, remainingBytes }) => ({
        id,
        mode: "copy",
        totalBytes,
        copiedBytes: totalBytes - remainingBytes,
        remainingBytes,
        mirroredBytes: 0,
        heldBytes: 0,
        round: 0,
        zeroBytes: 0,
        unchangedBytes: 0,
        savedBytes: 0,
      })),
    );
    await sleep(options.clock, REPORT_MS);
  }
}

/** What becomes of a guest's disks at the end of an attempt. */
import { markImagesLeft, unmarkImagesLeft, type Guest, type Logger } from "@vmferry/agent";
import { sleep, type Clock } from "@vmferry/core";
import type { SourceOwnership } from "@vmferry/protocol";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { SourceDisks } from "../disk/source-disks.ts";
import { LOST_FLUSH } from "./doubt-text.ts";

const ATTEMPTS_MAX = 5;
const AGAIN_MS = 2000;

export interface DiskPartingOptions {
  readonly disks: SourceDisks;
  readonly migrationId: string;
  readonly guest: Guest;
  readonly qemu: SourceQemu;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class DiskParting {
  readonly #options: DiskPartingOptions;
  /** Null before the hand-over. */
  #marked: Promise<boolean> | null = null;

  constructor(options: DiskPartingOptions) {
    this.#options = options;
  }

  /**
   * The guest is handed over in `epoch`: from now on nobody may take its images for its disks, also
   * where this agent ends before the dest has answered. The guest does not wait for it.
   */
  handOver(epoch: number): void {
    this.#marked = this.#mark(epoch);
  }

  /**
   * A guest that runs here gets its disks back; one that has gone leaves images that are marked.
   * While that is undecided the guest stands still, and everything stays as it is.
   */
  async part({ phase }: SourceOwnership): Promise<void> {
    const { disks, guest } = this.#options;
    const wasMarked = await this.#marked;
    if (phase === "owner") {
      if (wasMarked !== null) await unmarkImagesLeft(disks.copied);
      await this.#giveBack();
    }
    if (phase !== "done") return;
    await disks.close();
    if (!wasMarked) await this.#mark(guest.epoch);
  }

  async #mark(epoch: number): Promise<boolean> {
    const { disks, migrationId, logger } = this.#options;
    try {
      await markImagesLeft(disks.copied, { migrationId, epoch });
      logger.debug("the images that the guest leaves are marked");
      return true;
    } catch (error) {
      logger.error({ err: error }, "an image that the guest leaves could not be marked");
      return false;
    }
  }

  /** Until its disks are its own again, the guest runs through the agent's export. */
  async #giveBack(): Promise<void> {
    const { disks, guest, qemu, clock, logger } = this.#options;
    for (let attempt = 1; guest.alive; attempt++) {
      try {
        if (disks.suspect) await qemu.halt();
        await disks.leave();
        // The last flush of all may have been the one that failed.
        if (disks.suspect) await this.#leaveStopped();
        else await qemu.retryFailedIo();
        return;
      } catch (error) {
        logger.error({ err: error, attempt }, "the guest's disks stay behind the agent");
        if (attempt === ATTEMPTS_MAX) return;
        await sleep(clock, AGAIN_MS);
      }
    }
    await disks.close();
  }

  /**
   * A flush failed, after which the kernel has forgotten what it could not write: the next one would
   * succeed and lie. So the guest, whose flush has not been answered, stays stopped.
   */
  async #leaveStopped(): Promise<void> {
    const { guest, qemu, logger } = this.#options;
    await qemu.halt();
    logger.error({ guest: guest.name }, LOST_FLUSH);
  }
}

/**
 * Disks that are not copied before the hand-over: written down while the guest stands still, served
 * once it is the dest's, forgotten when nobody can ask for them any more.
 */
import { removeLeftDisks, writeLeftDisks, type LeftDisk } from "../adapters/left-disks.ts";
import { DiskRest, type DiskRestOptions, type DiskRestProgress } from "./disk-rest.ts";

export interface LazyDepartureOptions extends Omit<DiskRestOptions, "bandwidthBytesPerSecond"> {
  readonly disks: readonly LeftDisk[];
  readonly hashSeed: string;
  /** Where what an agent has to serve is kept. */
  readonly memoryDir: string;
  readonly limits: () => { readonly bandwidthBytesPerSecond: number | null };
}

export class LazyDeparture {
  readonly #options: LazyDepartureOptions;
  #rest: DiskRest | null = null;
  #serving: Promise<void> | null = null;
  #closed = false;

  constructor(options: LazyDepartureOptions) {
    this.#options = options;
  }

  get progress(): DiskRestProgress {
    const { disks } = this.#options;
    const all = disks.map(({ id, sizeBytes: totalBytes }) => ({
      ...{ id, totalBytes, remainingBytes: totalBytes },
    }));
    return this.#rest?.progress ?? { disks: all, wireBytes: 0, reconnects: 0 };
  }

  setBandwidthLimit(bytesPerSecond: number | null): void {
    this.#rest?.setBandwidthLimit(bytesPerSecond);
  }

  /** Before the hand-over: an agent that starts anew has to find what the dest will ask for. */
  keep(): Promise<void> {
    const { memoryDir, about, hashSeed, disks } = this.#options;
    const { migrationId, epoch } = about;
    return writeLeftDisks(memoryDir, migrationId, { epoch, hashSeed, disks });
  }

  /** Nothing writes to the images any more. */
  serve(): void {
    this.#serving ??= this.#serve();
  }

  /** Serves no more; what was written down stays. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#serving;
    await this.#rest?.close();
  }

  /** Closed before. Nobody can ask for them any more. */
  discard(): Promise<void> {
    const { memoryDir, about } = this.#options;
    return removeLeftDisks(memoryDir, about.migrationId);
  }

  async #serve(): Promise<void> {
    const { disks, hashSeed, about, limits, logger } = this.#options;
    const { bandwidthBytesPerSecond } = limits();
    try {
      const left = { epoch: about.epoch, hashSeed, disks };
      const rest = await DiskRest.open(left, { ...this.#options, bandwidthBytesPerSecond });
      if (this.#closed) await rest.close();
      else this.#rest = rest;
    } catch (error) {
      // The dest waits; an agent that is started anew tries again.
      logger.error({ err: error }, "disks that the dest lacks cannot be served");
    }
  }
}

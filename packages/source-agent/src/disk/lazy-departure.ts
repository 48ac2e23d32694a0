/**
 * Disks that are not copied before the hand-over: written down while the guest stands still, kept from
 * everybody who could write to them before it is handed over, served once it is the dest's, forgotten
 * when nobody can ask for them any more.
 */
import { assert } from "@vmferry/core";
import {
  removeLeftDisks,
  writeLeftDisks,
  type FollowingDisk,
  type LeftDisk,
} from "../adapters/left-disks.ts";
import { DiskRest, type DiskRestOptions, type DiskRestProgress } from "./disk-rest.ts";
import { noteLeft, StillImages } from "./still-images.ts";

export interface LazyDepartureOptions extends Omit<DiskRestOptions, "bandwidthBytesPerSecond"> {
  readonly disks: readonly FollowingDisk[];
  readonly hashSeed: string;
  /** Where what an agent has to serve is kept. */
  readonly memoryDir: string;
  readonly limits: () => { readonly bandwidthBytesPerSecond: number | null };
}

export class LazyDeparture {
  readonly #options: LazyDepartureOptions;
  /** Null before `keep`. */
  #left: readonly LeftDisk[] | null = null;
  #fencing: Promise<void> = Promise.resolve();
  /** Null while QEMU may have the images, and once they are the rest's. */
  #images: StillImages | null = null;
  #rest: DiskRest | null = null;
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
  async keep(): Promise<void> {
    const { memoryDir, about, hashSeed, disks } = this.#options;
    const { migrationId, epoch } = about;
    const left = await Promise.all(disks.map(noteLeft));
    await writeLeftDisks(memoryDir, migrationId, { epoch, hashSeed, disks: left });
    this.#left = left;
  }

  /**
   * QEMU has let go of the images: from now on until `close` it does not get them back, whoever tells
   * it to `cont`. Rejects where somebody was quicker; then nothing may be handed over.
   */
  fence(): Promise<void> {
    this.#fencing = this.#fence();
    return this.#fencing;
  }

  /** Fenced before; the dest may ask. */
  serve(): void {
    if (this.#images === null) return;
    const { hashSeed, limits } = this.#options;
    const { bandwidthBytesPerSecond } = limits();
    this.#rest = new DiskRest(this.#images, hashSeed, {
      ...this.#options,
      bandwidthBytesPerSecond,
    });
    this.#images = null;
  }

  /** Serves no more, and QEMU may have the images; what was written down stays. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#fencing.catch(() => undefined);
    await this.#images?.close();
    await this.#rest?.close();
  }

  /** Closed before. Nobody can ask for them any more. */
  discard(): Promise<void> {
    const { memoryDir, about } = this.#options;
    return removeLeftDisks(memoryDir, about.migrationId);
  }

  async #fence(): Promise<void> {
    assert(this.#left !== null, "what is left was written down before QEMU let go of it");
    const images = await StillImages.open(this.#left);
    if (this.#closed) await images.close();
    else this.#images = images;
  }
}

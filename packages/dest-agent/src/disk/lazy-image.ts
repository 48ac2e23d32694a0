/**
 * An image, its mark, its present map and the disk over them, from the hand-over to the moment when
 * the image is an ordinary one:
 *
 *   filling ─begin─▶ lazy ─complete─▶ whole ─forget─▶ no mark, no map
 *                     └─ killed ─takeUp─┘
 */
import { DiskHashes } from "@vmferry/agent";
import {
  ImageFile,
  lockImage,
  MapFile,
  PartialMark,
  PresentMap,
  readBootId,
  type CreatedImage,
  type ImageLock,
} from "@vmferry/block";
import { messageOf, type Clock } from "@vmferry/core";
import type { BlockFetcher } from "./block-fetcher.ts";
import { DiskError } from "./disk-failure.ts";
import { LazyDisk } from "./lazy-disk.ts";

export interface LazyImageOptions {
  readonly id: string;
  /** In the offer. */
  readonly index: number;
  readonly fetcher: BlockFetcher;
  readonly compression: boolean;
  readonly clock: Clock;
  readonly onFailed: (error: unknown) => void;
}

interface Parts {
  readonly image: ImageFile;
  readonly lock: ImageLock;
  readonly mark: PartialMark;
  readonly map: PresentMap;
  readonly hashes: DiskHashes;
}

export class LazyImage {
  readonly disk: LazyDisk;
  readonly image: ImageFile;
  readonly #lock: ImageLock;
  readonly #mark: PartialMark;
  readonly #map: PresentMap;

  private constructor({ image, lock, mark, map, hashes }: Parts, options: LazyImageOptions) {
    const { id, index, fetcher, compression, clock, onFailed } = options;
    this.image = image;
    this.#lock = lock;
    this.#mark = mark;
    this.#map = map;
    this.disk = new LazyDisk({
      ...{ id, image, map, hashes, compression, clock, onFailed },
      ask: (run, urgency) => {
        fetcher.ask(index, run, urgency);
      },
    });
    fetcher.join(index, this.disk);
  }

  /**
   * Before PREPARED: what came is flushed, and `hashes` leaves out exactly the units that are missing.
   * Resolves when a crash cannot make an ordinary image of it any more.
   */
  static async begin(
    { image, lock, mark }: CreatedImage,
    hashes: DiskHashes,
    options: LazyImageOptions,
  ): Promise<LazyImage> {
    const { imageBytes, migrationId, epoch } = mark.subject;
    const subject = { imageBytes, migrationId, epoch, unitBytes: hashes.unitBytes };
    const storage = await MapFile.create(image.path);
    const isPresent = (unit: number): boolean => !hashes.isLeftOut(unit);
    const bootId = await readBootId();
    const map = await PresentMap.create({ storage, subject, bootId }, isPresent);
    await mark.update({ state: "lazy" });
    return new LazyImage({ image, lock, mark, map, hashes }, options);
  }

  /** After the death of the agent that began it. Rejects with `dest-disk-failed`. */
  static async takeUp(
    path: string,
    { unitBytes, seedHex }: { readonly unitBytes: number; readonly seedHex: string },
    options: LazyImageOptions,
  ): Promise<LazyImage> {
    const image = await ImageFile.open(path);
    let storage: MapFile | null = null;
    try {
      // Who has the lock knows that nothing of the last agent is under way any more.
      const lock = await lockImage(image);
      const mark = await PartialMark.read(path);
      if (!(mark instanceof PartialMark) || mark.state !== "lazy") {
        throw new Error("its mark does not say that a part of it is elsewhere");
      }
      storage = await MapFile.open(path);
      if (storage === null) throw new Error("its present map is gone");
      const { imageBytes, migrationId, epoch } = mark.subject;
      if (imageBytes !== image.sizeBytes) throw new Error("its size has changed");
      const subject = { imageBytes, migrationId, epoch, unitBytes };
      const map = await PresentMap.open({ storage, subject, bootId: await readBootId() });
      const hashes = new DiskHashes({ sizeBytes: imageBytes, unitBytes, seedHex });
      hashes.leaveOut(0, hashes.units);
      return new LazyImage({ image, lock, mark, map, hashes }, options);
    } catch (error) {
      await storage?.close();
      await image.close();
      throw new DiskError(
        `disk ${options.id}: ${path} cannot be gone on with: ${messageOf(error)}`,
        { code: "dest-disk-failed" },
        { cause: error },
      );
    }
  }

  /** `disk.whole` has resolved: from now on the image may be used without its map. */
  complete(): Promise<void> {
    return this.#mark.complete();
  }

  /** Its guest's QEMU is going to lock it. */
  unlock(): Promise<void> {
    return this.#lock.unlock();
  }

  /** The agent ends, and the disk is not whole: mark and map stay. */
  async close(): Promise<void> {
    await this.disk.stop();
    await this.#map.close();
    await this.image.close();
  }

  /** QEMU uses the image itself. Nothing of the migration is left beside it when this resolves. */
  async forget(): Promise<void> {
    await this.close();
    await MapFile.remove(this.image.path);
    await this.#mark.remove();
  }
}

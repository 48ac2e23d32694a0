/**
 * An image behind an export that a dead agent had, for the time until its guest has it back. Reads
 * and flushes are served at once, for QEMU may wait for one of them before it answers anything. What
 * changes the image waits until nobody else has it open: what the dead agent had under way has ended
 * then, and can no longer land behind what QEMU sends again.
 */
import type { Logger } from "pino";
import {
  ImageFile,
  lockImage,
  type BlockDevice,
  type Extent,
  type ImageLock,
} from "@vmferry/block";
import { Deferred, messageOf } from "@vmferry/core";

const LOCK_AGAIN_MS = 500;

export interface ReopenedOptions {
  /** The dead agent has told QEMU that a flush failed: the next one would succeed and lie. */
  readonly isSuspect?: boolean;
  /** A flush has failed, and is answered when this has settled: the next life is to know of it. */
  readonly onSuspect?: () => Promise<void>;
}

export class ReopenedImage implements BlockDevice {
  readonly sizeBytes: number;
  readonly #image: ImageFile;
  readonly #logger: Logger;
  readonly #wasSuspect: boolean;
  readonly #onSuspect: () => Promise<void>;
  #flushesGivenUp = false;
  /** Null before a flush has failed here. */
  #noted: Promise<void> | null = null;
  readonly #locked = new Deferred();
  #lock: ImageLock | null = null;
  #closed = false;
  #timer: NodeJS.Timeout | null = null;
  #attempt: Promise<void>;

  private constructor(image: ImageFile, logger: Logger, options: ReopenedOptions) {
    const { isSuspect = false, onSuspect = () => Promise.resolve() } = options;
    this.#wasSuspect = isSuspect;
    this.#onSuspect = onSuspect;
    this.sizeBytes = image.sizeBytes;
    this.#image = image;
    this.#logger = logger;
    this.#locked.promise.catch(() => undefined);
    this.#attempt = this.#tryToLock(1);
  }

  static async open(
    path: string,
    logger: Logger,
    options: ReopenedOptions = {},
  ): Promise<ReopenedImage> {
    return new ReopenedImage(await ImageFile.open(path), logger, options);
  }

  /** Something that the guest wrote may be lost, by the dead agent's word or by what was seen here. */
  get isSuspect(): boolean {
    return this.#wasSuspect || this.#image.suspect;
  }

  /** The guest stands still, and QEMU has to let go of this image, which it does with a flush. */
  giveUpFlushes(): void {
    this.#flushesGivenUp = this.isSuspect;
  }

  get kind(): ImageFile["kind"] {
    return this.#image.kind;
  }

  get path(): string {
    return this.#image.path;
  }

  /** Resolves as soon as this is the only one that has the image open; rejects once it is closed. */
  get locked(): Promise<void> {
    return this.#locked.promise;
  }

  /** QEMU is to have the image. */
  async unlock(): Promise<void> {
    await this.#lock?.unlock();
    this.#lock = null;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#attempt;
    this.#locked.reject(new Error("the image was closed"));
    await this.#image.close();
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#image.read(offset, length);
  }

  readInto(offset: number, buffer: Buffer): Promise<void> {
    return this.#image.readInto(offset, buffer);
  }

  async write(offset: number, data: Buffer): Promise<void> {
    await this.locked;
    await this.#image.write(offset, data);
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayPunch: boolean },
  ): Promise<void> {
    await this.locked;
    await this.#image.writeZeroes(offset, length, options);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.locked;
    await this.#image.trim(offset, length);
  }

  async flush(): Promise<void> {
    if (this.#flushesGivenUp) return;
    if (this.#wasSuspect) throw new Error("the image failed to store data before");
    try {
      await this.#image.flush();
    } catch (error) {
      // Not so where it is closed already.
      if (this.#image.suspect) await (this.#noted ??= this.#note());
      throw error;
    }
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    return this.#image.extents(offset, length);
  }

  async #note(): Promise<void> {
    try {
      await this.#onSuspect();
    } catch (error) {
      this.#logger.error({ err: error }, "a failed flush could not be written down");
      this.#noted = null;
    }
  }

  async #tryToLock(attempt: number): Promise<void> {
    try {
      this.#lock = await lockImage(this.#image);
      this.#locked.resolve();
    } catch (error) {
      if (this.#closed) return;
      const what = "the image of an export is in use; what is written there waits";
      if (attempt === 1) this.#logger.warn({ reason: messageOf(error) }, what);
      this.#timer = setTimeout(() => {
        this.#attempt = this.#tryToLock(attempt + 1);
      }, LOCK_AGAIN_MS);
    }
  }
}

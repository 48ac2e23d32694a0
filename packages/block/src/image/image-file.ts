/**
 * A disk in a raw image: a regular file or a block device.
 *
 * A write is answered when the kernel has it, which survives the death of this process, and a flush
 * when the disk has it. What becomes of an image that fails to store something: ImageDurability.
 */
import { assert, Deferred, messageOf } from "@vmferry/core";
import type { BlockDevice, Extent } from "../block-device.ts";
import { BlockError } from "../block-error.ts";
import { blockFailure, blockRefusal } from "./block-failure.ts";
import { datasync, readFully, writeFully } from "./descriptor-io.ts";
import { fileExtents } from "./file-extents.ts";
import {
  closeDescriptor,
  openImageDescriptor,
  statDescriptor,
  type ImageDescriptor,
} from "./image-descriptor.ts";
import { ImageDurability } from "./image-durability.ts";
import { imageNotUsable } from "./image-error.ts";
import { discardOnDevice, type ByteRange } from "./libc.ts";
import { RangeZeroing } from "./range-zeroing.ts";

export interface OpenImageOptions {
  readonly readOnly?: boolean;
}

/** Of `stat.blocks`, whatever the blocks of the file system are. */
export const STAT_BLOCK_BYTES = 512;

export class ImageFile implements BlockDevice {
  readonly path: string;
  readonly kind: "file" | "host-device";
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #fd: number;
  readonly #zeroing: RangeZeroing;
  readonly #durability: ImageDurability;
  #underWay = 0;
  #idle: Deferred | null = null;
  #closed: Promise<void> | null = null;

  /**
   * `path` is resolved: a symbolic link is refused, as is what is neither a regular file nor a
   * block device. Rejects with `image-not-usable`.
   */
  static async open(path: string, options: OpenImageOptions = {}): Promise<ImageFile> {
    const readOnly = options.readOnly ?? false;
    try {
      return new ImageFile(await openImageDescriptor(path, readOnly));
    } catch (cause) {
      throw imageNotUsable(path, messageOf(cause), cause);
    }
  }

  /** Takes over the descriptor: closing is up to the ImageFile from here on. */
  constructor(descriptor: ImageDescriptor) {
    this.path = descriptor.path;
    this.readOnly = descriptor.readOnly;
    this.kind = descriptor.kind;
    this.sizeBytes = descriptor.sizeBytes;
    this.#fd = descriptor.fd;
    this.#zeroing = new RangeZeroing(descriptor.fd, descriptor.kind === "host-device");
    this.#durability = new ImageDurability(() => datasync(descriptor.fd));
  }

  /** Something that was written may be lost; for ever true once it is. */
  get suspect(): boolean {
    return this.#durability.suspect;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    await this.readInto(offset, buffer);
    return buffer;
  }

  readInto(offset: number, buffer: Buffer): Promise<void> {
    const range = { offset, length: buffer.length };
    return this.#request("read", range, async () => {
      const bytes = await readFully(this.#fd, buffer, offset);
      if (bytes < buffer.length) {
        throw new Error(
          `the image ends at ${offset + bytes}, before its size of ${this.sizeBytes}`,
        );
      }
    });
  }

  write(offset: number, data: Buffer): Promise<void> {
    const range = { offset, length: data.length };
    return this.#change("write", range, () => writeFully(this.#fd, data, offset));
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayPunch: boolean },
  ): Promise<void> {
    const range = { offset, length };
    return this.#change("write-zeroes", range, () => this.#zeroing.zero(range, options));
  }

  trim(offset: number, length: number): Promise<void> {
    const range = { offset, length };
    return this.#change("trim", range, async () => {
      if (this.kind === "file") await this.#zeroing.punch(range);
      // A device that cannot discard keeps what it has, which the contract allows.
      else await discardOnDevice(this.#fd, range).catch(() => undefined);
    });
  }

  flush(): Promise<void> {
    return this.#request("flush", null, () => this.#durability.flush());
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    const range = { offset, length };
    return this.#request("extents", range, async () =>
      this.kind === "file" ? fileExtents(this.#fd, range) : [{ ...range, kind: "data" }],
    );
  }

  /** What the image takes on the host; all of a device. */
  async allocatedBytes(): Promise<number> {
    if (this.kind === "host-device") return this.sizeBytes;
    const { blocks } = await this.withDescriptor("stat", statDescriptor);
    return Number(blocks) * STAT_BLOCK_BYTES;
  }

  /** When a file was written last, in nanoseconds; null for a device, which does not tell. */
  async writtenAtNs(): Promise<bigint | null> {
    if (this.kind === "host-device") return null;
    return (await this.withDescriptor("stat", statDescriptor)).mtimeNs;
  }

  /** For what concerns the open file and not the disk in it. It stays open until `use` is done. */
  async withDescriptor<T>(operation: string, use: (fd: number) => Promise<T>): Promise<T> {
    if (this.#closed !== null) {
      const request = { operation, offset: null };
      throw blockRefusal(request, "ESHUTDOWN", { text: "the image is closed" });
    }
    this.#underWay++;
    try {
      return await use(this.#fd);
    } finally {
      this.#underWay--;
      if (this.#underWay === 0) this.#idle?.resolve();
    }
  }

  /** Waits for the requests under way; later ones reject with ESHUTDOWN. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#underWay > 0) {
      this.#idle = new Deferred();
      await this.#idle.promise;
    }
    await closeDescriptor(this.#fd);
  }

  async #change(operation: string, range: ByteRange, work: () => Promise<void>): Promise<void> {
    if (this.readOnly) {
      const request = { operation, offset: range.offset };
      throw blockRefusal(request, "EPERM", { text: "the image is read-only" });
    }
    try {
      await this.#request(operation, range, work);
    } catch (error) {
      if (error instanceof BlockError && error.detail.errno === "EIO") {
        this.#durability.storageFailed();
      }
      throw error;
    }
  }

  /** `range` is null where the whole disk is meant. */
  async #request<T>(
    operation: string,
    range: ByteRange | null,
    work: () => Promise<T>,
  ): Promise<T> {
    if (range !== null) {
      const { offset, length } = range;
      const isInside = offset >= 0 && length > 0 && offset + length <= this.sizeBytes;
      assert(isInside, "a request lies within the disk and is not empty");
    }
    return this.withDescriptor(operation, async () => {
      try {
        return await work();
      } catch (cause) {
        throw blockFailure({ operation, offset: range?.offset ?? null }, cause);
      }
    });
  }
}

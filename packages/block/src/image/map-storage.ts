/** Where a present map lies. The holder of the image's lock alone opens it. */
import { constants } from "node:fs";
import { lstat, open, readFile, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { readFully, writeFully, datasync } from "./descriptor-io.ts";
import { removeOwnFile } from "./own-file.ts";
import { syncDirectory } from "./sync-directory.ts";

export interface MapStorage {
  readonly sizeBytes: number;
  /** Fewer bytes where the file ends. */
  read(position: number, length: number): Promise<Buffer>;
  /** Resolves when the bytes survive the death of this process. */
  write(position: number, bytes: Buffer): Promise<void>;
  /** What was written before the call survives the death of the host. */
  datasync(): Promise<void>;
  close(): Promise<void>;
}

const MAP_SUFFIX = ".vmferry-present";

/** Whether a name is one that a map could have. */
export function isMapName(name: string): boolean {
  return name.endsWith(MAP_SUFFIX);
}

/** Changes with every boot of the host: until then what was written is in its page cache. */
export async function readBootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}

export class MapFile implements MapStorage {
  readonly sizeBytes: number;
  readonly #handle: FileHandle;

  /** An empty file in the place of whatever map there is. */
  static async create(imagePath: string): Promise<MapFile> {
    const path = imagePath + MAP_SUFFIX;
    await removeOwnFile(path);
    const handle = await open(path, "wx+", 0o600);
    await syncDirectory(dirname(path));
    return new MapFile(handle, 0);
  }

  /** Null where there is none. */
  static async open(imagePath: string): Promise<MapFile | null> {
    const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = constants;
    let handle: FileHandle;
    try {
      handle = await open(imagePath + MAP_SUFFIX, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
      throw error;
    }
    const stats = await handle.stat().catch(async (error: unknown) => {
      await handle.close();
      throw error;
    });
    if (stats.isFile() && stats.uid === process.geteuid?.()) return new MapFile(handle, stats.size);
    await handle.close();
    throw new Error(`${imagePath}${MAP_SUFFIX} is not a regular file of this user`);
  }

  /** Whether there is anything at its place. */
  static async isThere(imagePath: string): Promise<boolean> {
    try {
      await lstat(imagePath + MAP_SUFFIX);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
      throw error;
    }
  }

  /** Resolves when that is durable. */
  static async remove(imagePath: string): Promise<void> {
    await removeOwnFile(imagePath + MAP_SUFFIX);
    await syncDirectory(dirname(imagePath));
  }

  private constructor(handle: FileHandle, sizeBytes: number) {
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
  }

  async read(position: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(length);
    return buffer.subarray(0, await readFully(this.#handle.fd, buffer, position));
  }

  write(position: number, bytes: Buffer): Promise<void> {
    return writeFully(this.#handle.fd, bytes, position);
  }

  datasync(): Promise<void> {
    return datasync(this.#handle.fd);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/**
 * Page files by path, made for NFS with its caches: one writer writes with pwrite(2) at the end and
 * syncs; a reader opens the file anew to see what has come, because a client asks the server again
 * for whatever is opened (close-to-open consistency, unless it is mounted with `nocto`). No locks,
 * no mmap, no O_APPEND, which NFS does not have.
 */
import { constants } from "node:fs";
import { lstat, mkdir, open, opendir, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { syncDirectory } from "@vmferry/block";
import type { AppendedFile, PageFiles, ReadableFile } from "./page-files.ts";

export class SharedPageFiles implements PageFiles {
  async create(path: string): Promise<AppendedFile> {
    const directory = dirname(path);
    await mkdir(directory, { mode: 0o700 }).catch((error: unknown) => {
      if (codeIn(error) !== "EEXIST") throw error;
    });
    const handle = await open(path, "wx", 0o600);
    try {
      await syncDirectory(directory);
      return new AppendedHandle(handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async open(path: string): Promise<ReadableFile | null> {
    const file = await openIfThere(path);
    if (file !== null) return file;
    // An NFS client remembers for a while that a name was not there.
    await syncDirectory(dirname(path)).catch(() => undefined);
    return await openIfThere(path);
  }

  async remove(path: string): Promise<void> {
    await rm(path, { force: true });
  }

  async list(directory: string, countMax: number): Promise<string[]> {
    const names: string[] = [];
    try {
      for await (const { name } of await opendir(directory)) {
        names.push(name);
        if (names.length === countMax) break;
      }
    } catch (error) {
      if (codeIn(error) !== "ENOENT") throw error;
    }
    return names;
  }
}

class AppendedHandle implements AppendedFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: Buffer, position: number): Promise<number> {
    return (await this.#handle.write(bytes, 0, bytes.length, position)).bytesWritten;
  }

  async sync(): Promise<void> {
    await this.#handle.sync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

class ReadableHandle implements ReadableFile {
  readonly inode: bigint;
  readonly sizeBytes: number;
  readonly #handle: FileHandle;

  constructor(handle: FileHandle, inode: bigint, sizeBytes: number) {
    this.#handle = handle;
    this.inode = inode;
    this.sizeBytes = sizeBytes;
  }

  async read(buffer: Buffer, position: number): Promise<number> {
    return (await this.#handle.read(buffer, 0, buffer.length, position)).bytesRead;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function openIfThere(path: string): Promise<ReadableFile | null> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    // Opening anything else could have effects of its own.
    if (!(await lstat(path)).isFile()) return null;
    const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const { ino, size } = await handle.stat({ bigint: true });
      return new ReadableHandle(handle, ino, Number(size));
    } catch (error) {
      await handle.close();
      throw error;
    }
  } catch (error) {
    if (codeIn(error) === "ENOENT") return null;
    throw error;
  }
}

function codeIn(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

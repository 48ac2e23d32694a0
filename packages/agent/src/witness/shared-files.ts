/**
 * The files of a witness by path, made for NFS with its caches: a file or directory is opened
 * before its attributes are believed, because a client asks the server again for whatever is opened
 * (close-to-open consistency, unless it is mounted with `nocto`).
 */
import { constants, type BigIntStats } from "node:fs";
import { link, lstat, mkdir, open, opendir, rename, rm, type FileHandle } from "node:fs/promises";
import { syncDirectory } from "@vmferry/block";
import { witnessDamaged } from "./witness-error.ts";
import type { FileFacts, WitnessFiles } from "./witness-files.ts";

export class SharedFiles implements WitnessFiles {
  async makeDirectory(path: string): Promise<void> {
    await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
      if (codeIn(error) !== "EEXIST") throw error;
    });
  }

  async create(path: string, bytes: Buffer): Promise<void> {
    const handle = await open(path, "wx", 0o600);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async link(path: string, newPath: string): Promise<void> {
    await link(path, newPath);
  }

  async rename(path: string, newPath: string): Promise<void> {
    await rename(path, newPath);
  }

  async remove(path: string): Promise<void> {
    await rm(path, { force: true });
  }

  async inspect(path: string): Promise<FileFacts | null> {
    return await ifThere(async () => {
      const seen = await lstat(path, { bigint: true });
      // Opening anything else could have effects of its own.
      if (kindOf(seen) === "other") return asFacts(seen);
      return await withOpened(path, async (handle) => asFacts(await handle.stat({ bigint: true })));
    });
  }

  async read(path: string, bytesMax: number): Promise<Buffer | null> {
    return await ifThere(async () => {
      if (!(await lstat(path)).isFile()) throw witnessDamaged(path, "it is no regular file");
      return await withOpened(path, async (handle) => {
        const buffer = Buffer.alloc(bytesMax + 1);
        const readBytes = await fill(buffer, handle);
        if (readBytes > bytesMax) throw witnessDamaged(path, `it has more than ${bytesMax} bytes`);
        return buffer.subarray(0, readBytes);
      });
    });
  }

  async list(directory: string, countMax: number): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of await opendir(directory)) {
      names.push(name);
      if (names.length === countMax) break;
    }
    return names;
  }

  async syncDirectory(directory: string): Promise<void> {
    await syncDirectory(directory);
  }
}

async function ifThere<T>(look: () => Promise<T>): Promise<T | null> {
  try {
    return await look();
  } catch (error) {
    if (codeIn(error) === "ENOENT") return null;
    throw error;
  }
}

async function withOpened<T>(path: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    return await use(handle);
  } finally {
    await handle.close();
  }
}

/** Returns how many bytes there were, up to the buffer's length. */
async function fill(buffer: Buffer, handle: FileHandle): Promise<number> {
  let doneBytes = 0;
  while (doneBytes < buffer.length) {
    const left = buffer.length - doneBytes;
    const { bytesRead } = await handle.read(buffer, doneBytes, left, doneBytes);
    if (bytesRead === 0) break;
    doneBytes += bytesRead;
  }
  return doneBytes;
}

function kindOf(stats: BigIntStats): FileFacts["kind"] {
  if (stats.isFile()) return "file";
  return stats.isDirectory() ? "directory" : "other";
}

function asFacts(stats: BigIntStats): FileFacts {
  return {
    kind: kindOf(stats),
    inode: stats.ino,
    linkCount: Number(stats.nlink),
    mode: Number(stats.mode) & 0o777,
    uid: Number(stats.uid),
    modifiedMs: Number(stats.mtimeMs),
  };
}

function codeIn(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

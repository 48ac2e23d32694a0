/**
 * Journals on a local file system. A file appears under its name when it is whole and durable, and
 * locked already, so that nobody ever sees half of a header, nor a journal that its maker does not
 * hold. It is made under a name of its own for that; what a crash leaves of such files is removed
 * by whoever opens the journal next.
 */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { link, lstat, open, readdir, rename, rm, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { lockExclusively, syncDirectory } from "@vmferry/block";
import { JournalError, journalNotUsable } from "./journal-error.ts";
import type { JournalStorage, StoredJournal } from "./journal-storage.ts";

const NEW_SUFFIX = ".new";
/** The file of a name can be another one by the time that it is locked, if only a few times. */
const ATTEMPTS_MAX = 3;

export class FileStorage implements JournalStorage {
  readonly #path: string;
  readonly #directory: string;

  constructor(path: string) {
    this.#path = path;
    this.#directory = dirname(path);
  }

  async open(): Promise<StoredJournal | null> {
    try {
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        const handle = await openIfThere(this.#path);
        if (handle === null) return null;
        const file = await this.#claim(handle);
        if (file !== null) return file;
      }
    } catch (cause) {
      throw asJournalError(this.#path, cause);
    }
    throw this.#lockedError();
  }

  async create(bytes: Buffer): Promise<StoredJournal | null> {
    return this.#make(bytes, async (newPath) => {
      try {
        await link(newPath, this.#path);
      } catch (error) {
        // There is one by now. Whoever made it may have taken the new file for a leftover.
        if (codeIn(error) === "EEXIST" || codeIn(error) === "ENOENT") return false;
        throw error;
      }
      await rm(newPath, { force: true });
      return true;
    });
  }

  async replace(bytes: Buffer): Promise<StoredJournal> {
    const file = await this.#make(bytes, async (newPath) => {
      await rename(newPath, this.#path);
      return true;
    });
    return file!;
  }

  async remove(): Promise<void> {
    await rm(this.#path, { force: true });
  }

  /** Null where the name stands for another file, or none, by the time that this one is locked. */
  async #claim(handle: FileHandle): Promise<StoredJournal | null> {
    let isOurs = false;
    try {
      const { uid, size } = await handle.stat();
      if (uid !== process.geteuid?.()) throw new Error("it is another user's");
      if (!(await lockExclusively(handle.fd))) throw this.#lockedError();
      isOurs = await isAt(this.#path, handle);
      if (!isOurs) return null;
      await this.#removeLeftovers();
      // Whoever made it may not have come that far.
      await syncDirectory(this.#directory);
      return new JournalHandle(handle, size);
    } catch (error) {
      isOurs = false;
      throw error;
    } finally {
      if (!isOurs) await handle.close();
    }
  }

  /** `place` gives it the journal's name, and says whether it did. */
  async #make(
    bytes: Buffer,
    place: (newPath: string) => Promise<boolean>,
  ): Promise<StoredJournal | null> {
    const newPath = `${this.#path}.${randomUUID()}${NEW_SUFFIX}`;
    let handle: FileHandle | null = null;
    let isPlaced = false;
    try {
      handle = await open(newPath, "wx+", 0o600);
      const file = new JournalHandle(handle, bytes.length);
      await file.write(bytes, 0);
      await file.datasync();
      if (!(await lockExclusively(handle.fd))) throw this.#lockedError();
      if (!(await place(newPath))) return null;
      await syncDirectory(this.#directory);
      isPlaced = true;
      return file;
    } catch (cause) {
      throw asJournalError(this.#path, cause);
    } finally {
      if (!isPlaced) {
        await handle?.close();
        // It may have its name already: then it is as good as the other one, and stays.
        await rm(newPath, { force: true }).catch(() => undefined);
      }
    }
  }

  async #removeLeftovers(): Promise<void> {
    const prefix = `${basename(this.#path)}.`;
    for (const name of await readdir(this.#directory)) {
      if (!name.startsWith(prefix) || !name.endsWith(NEW_SUFFIX)) continue;
      await rm(join(this.#directory, name), { force: true });
    }
  }

  #lockedError(): JournalError {
    return new JournalError(`the journal ${this.#path} is in use: another agent has it open`, {
      code: "journal-locked",
      path: this.#path,
    });
  }
}

class JournalHandle implements StoredJournal {
  readonly sizeBytes: number;
  readonly #handle: FileHandle;

  constructor(handle: FileHandle, sizeBytes: number) {
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
  }

  async read(): Promise<Buffer> {
    const buffer = Buffer.alloc(this.sizeBytes);
    let doneBytes = 0;
    while (doneBytes < buffer.length) {
      const left = buffer.length - doneBytes;
      const { bytesRead } = await this.#handle.read(buffer, doneBytes, left, doneBytes);
      if (bytesRead === 0) throw new Error("it became shorter while it was read");
      doneBytes += bytesRead;
    }
    return buffer;
  }

  async write(bytes: Buffer, position: number): Promise<void> {
    let doneBytes = 0;
    while (doneBytes < bytes.length) {
      const left = bytes.length - doneBytes;
      const at = position + doneBytes;
      const { bytesWritten } = await this.#handle.write(bytes, doneBytes, left, at);
      if (bytesWritten === 0) throw new Error("the file takes no more bytes");
      doneBytes += bytesWritten;
    }
  }

  async truncate(bytes: number): Promise<void> {
    await this.#handle.truncate(bytes);
  }

  async datasync(): Promise<void> {
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | null> {
  const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    // Opening what is no file could have effects of its own.
    if (!(await lstat(path)).isFile()) throw new Error("it is not a regular file");
    return await open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (codeIn(error) === "ENOENT") return null;
    throw error;
  }
}

async function isAt(path: string, handle: FileHandle): Promise<boolean> {
  try {
    const options = { bigint: true } as const;
    const [named, held] = [await lstat(path, options), await handle.stat(options)];
    return named.ino === held.ino && named.dev === held.dev;
  } catch (error) {
    if (codeIn(error) === "ENOENT") return false;
    throw error;
  }
}

function asJournalError(path: string, cause: unknown): JournalError {
  return cause instanceof JournalError ? cause : journalNotUsable(path, cause);
}

function codeIn(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

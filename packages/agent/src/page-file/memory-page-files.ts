/**
 * For tests: a share of which everything is known. Each call goes through `onOperation`, which may
 * throw, wait, or say that fewer bytes are taken; what was written can be changed in between.
 */
import type { AppendedFile, PageFiles, ReadableFile } from "./page-files.ts";

export type PageFileOperation =
  "create" | "open" | "remove" | "write" | "sync" | "read" | "closeWritten" | "closeRead";

/** A number is how many bytes are taken at most. */
export type OnPageFileOperation = (
  operation: PageFileOperation,
) => Promise<number | undefined> | number | undefined;

export class MemoryPageFiles implements PageFiles {
  readonly operations: PageFileOperation[] = [];
  onOperation: OnPageFileOperation = () => undefined;
  inode = 1n;
  /** Whether an open file shows what was there when it was opened, as an NFS client may. */
  isCached = false;
  bytes: Buffer | null;

  constructor(bytes: Buffer | null = null) {
    this.bytes = bytes;
  }

  async create(): Promise<AppendedFile> {
    await this.does("create");
    if (this.bytes !== null) throw new Error("EEXIST: injected");
    this.bytes = Buffer.alloc(0);
    return {
      write: async (bytes, position) => {
        const taken = bytes.subarray(0, await this.does("write"));
        const before = this.bytes ?? Buffer.alloc(0);
        if (position !== before.length) throw new Error("not behind what was written");
        this.bytes = Buffer.concat([before, taken]);
        return taken.length;
      },
      sync: async () => {
        await this.does("sync");
      },
      close: async () => {
        await this.does("closeWritten");
      },
    };
  }

  async open(): Promise<ReadableFile | null> {
    await this.does("open");
    if (this.bytes === null) return null;
    const cached = this.isCached ? Buffer.from(this.bytes) : null;
    return {
      inode: this.inode,
      sizeBytes: this.bytes.length,
      read: async (buffer, position) => {
        const takenMax = await this.does("read");
        const from = cached ?? this.bytes ?? Buffer.alloc(0);
        return from.copy(buffer.subarray(0, takenMax), 0, position);
      },
      close: async () => {
        await this.does("closeRead");
      },
    };
  }

  async remove(): Promise<void> {
    await this.does("remove");
    this.bytes = null;
  }

  list(): Promise<string[]> {
    return Promise.resolve([]);
  }

  async does(operation: PageFileOperation): Promise<number | undefined> {
    this.operations.push(operation);
    return await this.onOperation(operation);
  }
}

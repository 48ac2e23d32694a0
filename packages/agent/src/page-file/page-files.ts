/** What page files need of the file system that both hosts share. */

export interface PageFiles {
  /** A new file, for its user alone, whose name is durable. Rejects where there is one. */
  create(path: string): Promise<AppendedFile>;
  /** As it is now, not as this host remembers it. Null where there is no regular file. */
  open(path: string): Promise<ReadableFile | null>;
  /** Does nothing where there is none. */
  remove(path: string): Promise<void>;
  /** At most so many of its names, in any order; none where there is no directory. */
  list(directory: string, countMax: number): Promise<string[]>;
}

export interface AppendedFile {
  /** Resolves to how many of the bytes were taken, as write(2) does: perhaps not all. */
  write(bytes: Buffer, position: number): Promise<number>;
  /** Makes durable, and visible to other hosts, what was written. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface ReadableFile {
  readonly inode: bigint;
  /** When it was opened. */
  readonly sizeBytes: number;
  /** Resolves to how many bytes there were, as read(2) does: perhaps not all; 0 at the end. */
  read(buffer: Buffer, position: number): Promise<number>;
  close(): Promise<void>;
}

/** Fills the buffer; resolves to less than its length only at the file's end. */
export async function readFully(
  file: ReadableFile,
  buffer: Buffer,
  position: number,
): Promise<number> {
  let doneBytes = await file.read(buffer, position);
  while (doneBytes > 0 && doneBytes < buffer.length) {
    const moreBytes = await file.read(buffer.subarray(doneBytes), position + doneBytes);
    if (moreBytes === 0) break;
    doneBytes += moreBytes;
  }
  return doneBytes;
}

/** What a witness needs of the file system that both hosts share. */

export interface FileFacts {
  readonly kind: "file" | "directory" | "other";
  readonly inode: bigint;
  /** How many names it has. */
  readonly linkCount: number;
  readonly mode: number;
  readonly uid: number;
  /** By the clock of whoever keeps the files, not of this host. */
  readonly modifiedMs: number;
}

export interface WitnessFiles {
  /** For its user alone. Leaves one that is there. */
  makeDirectory(path: string): Promise<void>;
  /** A new file, for its user alone, whose bytes are durable. Rejects where there is one. */
  create(path: string, bytes: Buffer): Promise<void>;
  link(path: string, newPath: string): Promise<void>;
  rename(path: string, newPath: string): Promise<void>;
  /** Does nothing where there is none. */
  remove(path: string): Promise<void>;
  /** As they are now, not as this host remembers them. Null where there is nothing. */
  inspect(path: string): Promise<FileFacts | null>;
  /** Null where there is none. Rejects with `witness-damaged` for what is no file, or longer. */
  read(path: string, bytesMax: number): Promise<Buffer | null>;
  /** At most so many of its names, in any order. */
  list(directory: string, countMax: number): Promise<string[]>;
  /** Makes durable which names it holds; this host then knows of those that others made. */
  syncDirectory(directory: string): Promise<void>;
}

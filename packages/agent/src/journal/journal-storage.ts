/** What a journal needs of the place where it lies. */

export interface JournalStorage {
  /**
   * The file there is, under a lock that keeps everybody else out; that it is there is durable.
   * Null where there is none. Rejects with `journal-locked` where somebody else has it.
   */
  open(): Promise<StoredJournal | null>;
  /** A new file of these bytes, durable and locked. Null where there is one by now. */
  create(bytes: Buffer): Promise<StoredJournal | null>;
  /**
   * Puts a file of these bytes in the place of the one that `open` or `create` gave, which stays
   * open. After a crash either is there, and when this resolves the new one is.
   */
  replace(bytes: Buffer): Promise<StoredJournal>;
  /** Removes the one that `open`, `create` or `replace` gave last, which stays open and locked. */
  remove(): Promise<void>;
}

export interface StoredJournal {
  /** When it was opened. */
  readonly sizeBytes: number;
  read(): Promise<Buffer>;
  /** When it rejects, not all of the bytes are in the file. */
  write(bytes: Buffer, position: number): Promise<void>;
  truncate(bytes: number): Promise<void>;
  /** Makes durable what was written. */
  datasync(): Promise<void>;
  /** Lets go of the lock too. */
  close(): Promise<void>;
}

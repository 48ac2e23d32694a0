/** A disk of a fixed size that can be read and written: an image file, or what stands before one. */

export interface Extent {
  readonly offset: number;
  readonly length: number;
  /** `zero`: reads as zeros and takes no space. */
  readonly kind: "data" | "zero";
}

/**
 * Every range lies within the disk and is not empty: whoever takes it from outside checks it first.
 * Requests may be under way at once; two that overlap are carried out in either order.
 * Rejects with a BlockError.
 */
export interface BlockDevice {
  readonly sizeBytes: number;
  read(offset: number, length: number): Promise<Buffer>;
  /** Fills the whole buffer. */
  readInto(offset: number, buffer: Buffer): Promise<void>;
  /** Resolves when the data survives the death of this process; `flush` is for the host's. */
  write(offset: number, data: Buffer): Promise<void>;
  /** Reads as zeros afterwards. Gives the space back only where `mayPunch`. */
  writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayPunch: boolean },
  ): Promise<void>;
  /** The content does not matter any more. */
  trim(offset: number, length: number): Promise<void>;
  /** What was written before the call survives the death of the host. */
  flush(): Promise<void>;
  /** In order and without gaps, from `offset` on; may end before `offset + length`. */
  extents(offset: number, length: number): Promise<readonly Extent[]>;
}

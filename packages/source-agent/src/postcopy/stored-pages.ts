/** Pages that the dest lacks after the hand-over, as what serves them sees them. */
import type { PageSet } from "@vmferry/agent";

export interface StoredPages {
  /** The pages that are stored; those of zeros among them. */
  readonly pages: PageSet;
  /** A page of zeros needs no reading. */
  isZero(block: number, page: number): boolean;
  /**
   * Reads consecutive stored pages of a block to the beginning of `into`. Rejects where the store
   * cannot be read; `into` must not be used before it settles.
   */
  read(block: number, firstPage: number, pages: number, into: Buffer): Promise<void>;
}

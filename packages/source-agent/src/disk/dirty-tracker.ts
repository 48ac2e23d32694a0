/**
 * Which blocks of a disk have to be copied (again). A tracker may say "marked" of a block that is
 * not (one needless copy), never the other way round: that would lose a write.
 */
export interface DirtyTracker {
  mark(block: number): void;
  has(block: number): boolean;
  /** Blocks that were marked, each counted once; where that is not known, at most so many. */
  readonly count: number;
  clear(): void;
}

/** The second way of missing pages, as the fetching sees it: a file that grows, and may end any time. */
import type { PageRequest } from "./open-requests.ts";

/** Consecutive pages of a block, of one content. One that is not of zeros stands alone. */
export interface FoundPages {
  readonly block: number;
  readonly first: number;
  readonly count: number;
  readonly content: Buffer | "zero";
}

export interface WantedPages {
  /** What vCPUs wait for, those that wait longest first. */
  asked(): readonly PageRequest[];
  isMissing(block: number, page: number): boolean;
}

export interface PagesFromFile {
  /**
   * The next pages, those that are asked for first; some of them may have come meanwhile. Waits
   * until there are any. Null when no more will come.
   */
  next(wanted: WantedPages): Promise<readonly FoundPages[] | null>;
  /** A vCPU asks for a page. */
  asked(): void;
  close(): void;
}

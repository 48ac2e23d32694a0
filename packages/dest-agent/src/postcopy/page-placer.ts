/** The way of missing pages into the dest's QEMU, which takes each of them once. */
import type { PageSet } from "@vmferry/agent";

export interface PagePlacer {
  /** What QEMU does not have yet. Placing a page takes it out. */
  readonly missing: PageSet;
  /** Collects a page for the next `flush`; its bytes are copied. It has to be missing. */
  page(block: number, page: number, data: Buffer, offset: number): void;
  zeroPage(block: number, page: number): void;
  /** Hands QEMU what was collected. Resolves when there is room for more. */
  flush(): Promise<void>;
  /** Digest over all of memory; null where an earlier life of the agent has placed a part of it. */
  digest(): string | null;
  /** Nothing is missing any more: ends RAM. Resolves when QEMU says that it has everything. */
  end(): Promise<void>;
}

/** Pages that the guest is likely to need as soon as it runs at the dest. */
import { PageSet } from "@vmferry/agent";

export interface PagePlace {
  readonly block: number;
  readonly page: number;
}

export class HotPages {
  /** What the guest's kernel works on all the time, and what was only written of late. */
  readonly #hottest: PageSet;
  readonly #others: PageSet;

  constructor(blocks: readonly { readonly lengthBytes: number }[]) {
    this.#hottest = new PageSet(blocks);
    this.#others = new PageSet(blocks);
  }

  add({ block, page }: PagePlace, isHottest: boolean): void {
    (isHottest ? this.#hottest : this.#others).add(block, page);
  }

  /** The likeliest first; each at least once. */
  *[Symbol.iterator](): Generator<PagePlace, void> {
    for (const pages of [this.#hottest, this.#others]) {
      for (const { block, first: page } of pages.runs(1)) yield { block, page };
    }
  }
}

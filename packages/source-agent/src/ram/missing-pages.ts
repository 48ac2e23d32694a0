/**
 * What goes to the store while QEMU is drained, and which of it the dest does not know to be missing
 * yet. It is told before the stun as far as possible: its QEMU discards each range by itself.
 */
import { PageSet, type PageHashes, type PageRun } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import type { RamBlock } from "@vmferry/qemu";
import type { OutboundFrame } from "../transport/bulk-sender.ts";
import type { DrainStore } from "./drain.ts";
import type { HeldPages } from "./held-pages.ts";
import { missingFrames } from "./missing-frames.ts";

export interface MissingPagesOptions {
  readonly store: DrainStore;
  readonly blocks: readonly RamBlock[];
  readonly hashes: PageHashes;
  /** Is told of every page that comes, by its index. */
  readonly onCame: (index: number) => void;
}

/** Bit 31 of a run's count is a flag that a missing page does not have. */
const RUN_PAGES_MAX = 2 ** 31 - 1;

export class MissingPages {
  readonly #store: DrainStore;
  readonly #hashes: PageHashes;
  readonly #onCame: MissingPagesOptions["onCame"];
  readonly #untold: PageSet;
  #tellers = 0;

  constructor({ store, blocks, hashes, onCame }: MissingPagesOptions) {
    this.#store = store;
    this.#hashes = hashes;
    this.#onCame = onCame;
    this.#untold = new PageSet(blocks);
  }

  put(block: number, page: number, source: Buffer, offset: number): void {
    this.#onCame(this.#hashes.indexOf(block, page));
    this.#note(block, page);
    this.#store.put(block, page, source, offset);
  }

  putZero(block: number, page: number): void {
    this.#onCame(this.#hashes.indexOf(block, page));
    this.#note(block, page);
    this.#store.putZero(block, page);
  }

  /** It is on its way. */
  sent(block: number, page: number): void {
    this.#store.pages.remove(block, page);
    this.#untold.remove(block, page);
  }

  /** What was held back is held no more. */
  putHeld(held: HeldPages): void {
    const content = Buffer.allocUnsafeSlow(limits.PAGE_BYTES);
    for (let oldest = held.oldest(); oldest !== null; oldest = held.oldest()) {
      const { block, page } = this.#hashes.locate(oldest.index);
      held.release(oldest.index, content);
      this.#note(block, page);
      this.#store.put(block, page, content, 0);
    }
  }

  /** Some frames were not made yet. */
  get isBeingTold(): boolean {
    return this.#tellers > 0;
  }

  /** Tell of every page once, also of some that are put meanwhile; made when they can be sent. */
  frames(pass: number): Generator<OutboundFrame, void> {
    this.#tellers++;
    return missingFrames(this.#tell(), pass);
  }

  *#tell(): Generator<PageRun> {
    let [block, page] = [0, 0];
    for (;;) {
      const run = this.#untold.next(block, page, RUN_PAGES_MAX);
      if (run === null) {
        this.#tellers--;
        return;
      }
      [block, page] = [run.block, run.first + run.count];
      for (let each = run.first; each < page; each++) this.#untold.remove(block, each);
      // It counts for nothing until it was served.
      this.#hashes.forget(this.#hashes.indexOf(block, run.first), run.count);
      yield run;
    }
  }

  #note(block: number, page: number): void {
    if (!this.#store.pages.has(block, page)) this.#untold.add(block, page);
  }
}

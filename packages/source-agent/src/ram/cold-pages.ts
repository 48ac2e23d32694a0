/**
 * What is in the store and the guest leaves alone: it is worth its way over the link before the
 * hand-over, for it will not be out of date, and of what a kernel and its programs have there much
 * is needed as soon as the guest runs.
 */
import type { PageHashes } from "@vmferry/agent";
import type { DrainLink, DrainStore } from "./drain.ts";
import type { FrameCollector } from "./frame-collector.ts";
import { STRETCH_PAGES, type HeatMap } from "./heat-map.ts";

/** In one go, for others have work to do. */
const LOOKED_STRETCHES_MAX = 128;

export interface ColdPagesOptions {
  readonly store: DrainStore;
  readonly hashes: PageHashes;
  readonly heat: HeatMap;
  readonly frames: FrameCollector;
  /** What came in it or later may not be written yet, and will come again. */
  readonly pass: number;
  /** The dest does not lack it, unless it comes again. */
  readonly onSent: (block: number, page: number) => void;
}

export class ColdPages {
  readonly #options: ColdPagesOptions;
  /** Pages below this index were not looked at: a Linux kernel has what it needs at the top of memory. */
  #end: number;
  #stretch: number[] = [];
  #isFilling = false;

  constructor(options: ColdPagesOptions) {
    this.#options = options;
    this.#end = options.hashes.pages;
  }

  /** Puts some into frames, while there is room; tells whether any may be left. */
  fill(link: DrainLink): boolean {
    // Whoever takes a frame may want the next one before the call that made it is over.
    if (this.#isFilling) return true;
    this.#isFilling = true;
    try {
      return this.#fill(link);
    } finally {
      this.#isFilling = false;
    }
  }

  #fill(link: DrainLink): boolean {
    let looked = 0;
    while (link.hasRoom) {
      const index = this.#stretch.pop();
      if (index !== undefined) this.#send(index);
      else if (this.#end === 0) return false;
      else if (++looked > LOOKED_STRETCHES_MAX) return true;
      else this.#nextStretch();
    }
    return true;
  }

  /** Its pages, the first of them last. */
  #nextStretch(): void {
    const { heat } = this.#options;
    const end = this.#end;
    this.#end = (Math.ceil(end / STRETCH_PAGES) - 1) * STRETCH_PAGES;
    if (!heat.isQuiet(this.#end / STRETCH_PAGES)) return;
    for (let index = end - 1; index >= this.#end; index--) this.#stretch.push(index);
  }

  #send(index: number): void {
    const { store, hashes, heat, frames, pass, onSent } = this.#options;
    const { block, page } = hashes.locate(index);
    if (!store.pages.has(block, page) || heat.lastPass(index) >= pass) return;
    const frame = frames.frame(block);
    if (store.isZero(block, page)) {
      hashes.set(index, hashes.zeroHash);
      frame.addZero(page);
    } else {
      // What the kernel does not have at hand follows the guest.
      if (!store.readWritten(block, page, frame.nextSlot)) return;
      hashes.set(index, hashes.hash(frame.nextSlot));
      frame.addData(page);
    }
    onSent(block, page);
    frames.closeIfFull();
  }
}

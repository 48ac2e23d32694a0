/**
 * How often each page keeps coming back. The first pass brings every page and says nothing; from
 * then on a page gains one for each pass that brings it and loses half for each that does not.
 *
 * 3 bytes a page.
 */
const HEAT_MAX = 255;

/** A page that came in two passes of three or so is hot. */
export const HOT_HEAT = 2;
/** Looked at in one go: a millisecond at most, for others have work to do. */
const SLICE_PAGES = 16 * 1024;
export class HeatMap {
  readonly #heat: Uint8Array;
  readonly #lastPass: Uint16Array;

  constructor(pages: number) {
    this.#heat = new Uint8Array(pages);
    this.#lastPass = new Uint16Array(pages);
  }

  /** The page came in `pass` (2 or later); returns its heat after that. */
  came(index: number, pass: number): number {
    const pass16 = pass & 0xffff;
    const missed = ((pass16 - this.#lastPass[index]! - 1) & 0xffff) >>> 0;
    const kept = missed > 8 ? 0 : this.#heat[index]! >> missed;
    const heat = Math.min(kept + 1, HEAT_MAX);
    this.#heat[index] = heat;
    this.#lastPass[index] = pass16;
    return heat;
  }

  /** The page's heat in `pass`, which may still bring it. */
  now(index: number, pass: number): number {
    const missed = (((pass & 0xffff) - this.#lastPass[index]! - 1) & 0xffff) >>> 0;
    if (missed === 0xffff) return this.#heat[index]!;
    return missed > 8 ? 0 : this.#heat[index]! >> missed;
  }

  /**
   * Indices of what the guest is likely to touch next, the likeliest first, at most so many: pages
   * that came in `pass` or are hot. Others may work meanwhile.
   */
  async hottest(pass: number, countMax: number): Promise<number[]> {
    const byHeat = Array.from({ length: HEAT_MAX + 1 }, (): number[] => []);
    for (let first = 0; first < this.#heat.length; first += SLICE_PAGES) {
      const end = Math.min(first + SLICE_PAGES, this.#heat.length);
      for (let index = first; index < end; index++) {
        if (this.#heat[index]! === 0) continue;
        const heat = this.#likelihood(index, pass);
        if (heat >= HOT_HEAT && byHeat[heat]!.length < countMax) byHeat[heat]!.push(index);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    return byHeat.toReversed().flat().slice(0, countMax);
  }

  /** As if what came just now had come twice more: it is worth more than what used to come. */
  #likelihood(index: number, pass: number): number {
    const isFresh = this.#lastPass[index] === (pass & 0xffff);
    return Math.min(this.now(index, pass) + (isFresh ? 2 : 0), HEAT_MAX);
  }
}

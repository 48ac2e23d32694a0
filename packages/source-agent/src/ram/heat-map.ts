/**
 * How often each page keeps coming back. The first pass brings every page and says nothing; from
 * then on a page gains one for each pass that brings it and loses half for each that does not.
 *
 * 3 bytes a page.
 */
const HEAT_MAX = 255;
const PASS_MAX = 0xffff;

/** A page that came in two passes of three or so is hot. */
export const HOT_HEAT = 2;
export const STRETCH_PAGES = 64;
const QUIET_PAGES_MAX = 16;
const MOSTLY_QUIET_PAGES_MAX = 32;
/** Looked at in one go: a millisecond at most, for others have work to do. */
const SLICE_STRETCHES = 256;
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

  /** As `came`, where passes are so short that what comes in one of five is hot: nothing is lost. */
  counted(index: number, pass: number): void {
    this.#heat[index] = Math.min(this.#heat[index]! + 1, HEAT_MAX);
    this.#lastPass[index] = Math.min(pass, PASS_MAX);
  }

  /** The last pass that brought it; 0 for one that came in the first alone. */
  lastPass(index: number): number {
    return this.#lastPass[index]!;
  }

  /**
   * Whether few of the pages around it came after the first pass. Neighbours mostly belong together:
   * these are a kernel's and its programs', where the others are what a busy program works on, and
   * those of them that did not come are merely the ones that it has not got to yet.
   */
  isQuiet(stretch: number, cameMax = QUIET_PAGES_MAX): boolean {
    const first = stretch * STRETCH_PAGES;
    const end = Math.min(first + STRETCH_PAGES, this.#heat.length);
    let came = 0;
    for (let index = first; index < end; index++) if (this.#heat[index]! > 0) came++;
    return came <= cameMax;
  }

  /** The page's heat in `pass`, which may still bring it. */
  now(index: number, pass: number): number {
    const missed = (((pass & 0xffff) - this.#lastPass[index]! - 1) & 0xffff) >>> 0;
    if (missed === 0xffff) return this.#heat[index]!;
    return missed > 8 ? 0 : this.#heat[index]! >> missed;
  }

  /**
   * Indices of what the guest is likely to touch next, the likeliest first, at most so many: pages
   * that came in `pass`, are hot, or came where little else did. Others may work meanwhile.
   */
  async hottest({ pass, countMax, isMissing }: HottestOptions): Promise<number[]> {
    const byScore = Array.from({ length: 2 * (HEAT_MAX + 1) }, (): number[] => []);
    const stretches = Math.ceil(this.#heat.length / STRETCH_PAGES);
    for (let stretch = 0; stretch < stretches; stretch++) {
      if (stretch % SLICE_STRETCHES === 0) await new Promise((resolve) => setImmediate(resolve));
      const isQuiet = this.isQuiet(stretch, MOSTLY_QUIET_PAGES_MAX);
      const first = stretch * STRETCH_PAGES;
      const end = Math.min(first + STRETCH_PAGES, this.#heat.length);
      for (let index = first; index < end; index++) {
        const score = this.#likelihood(index, pass) + (isQuiet ? HEAT_MAX + 1 : 0);
        if (score < HOT_HEAT) continue;
        const group = byScore[score]!;
        if (group.length < countMax && isMissing(index)) group.push(index);
      }
    }
    return byScore.toReversed().flat().slice(0, countMax);
  }

  /** As if what came just now had come twice more: it is worth more than what used to come. */
  #likelihood(index: number, pass: number): number {
    const isFresh = this.#lastPass[index] === Math.min(pass, PASS_MAX);
    return Math.min(this.#heat[index]! + (isFresh ? 2 : 0), HEAT_MAX);
  }
}

interface HottestOptions {
  readonly pass: number;
  readonly countMax: number;
  readonly isMissing: (index: number) => boolean;
}

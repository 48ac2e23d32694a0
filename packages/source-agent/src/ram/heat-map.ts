/**
 * How often each page keeps coming back. The first pass brings every page and says nothing; from
 * then on a page gains one for each pass that brings it and loses half for each that does not.
 *
 * 3 bytes a page.
 */
const HEAT_MAX = 255;

/** A page that came in two passes of three or so is hot. */
export const HOT_HEAT = 2;
/** One that came in each of the last four. */
const HOTTEST_HEAT = 4;

export type Hotness = "cool" | "hot" | "hottest";

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
}

/** Of a page with this heat in `pass`; what came in each pass but the first is hottest, however few there were. */
export function hotnessOf(heat: number, pass: number): Hotness {
  if (heat < HOT_HEAT) return "cool";
  return heat >= Math.min(HOTTEST_HEAT, pass - 1) ? "hottest" : "hot";
}

import { MAP_LETTERS, type MapLetter } from "@vmferry/protocol";

export interface FoldCellsOptions {
  /** Pages or blocks of the whole. */
  readonly count: number;
  /** Never more than `count` of them are made. */
  readonly cells: number;
  readonly stateOf: (index: number) => MapLetter;
}

/** Looks at pages or blocks for one map: some 2 ms, however large the guest is. */
const LOOKS_MAX = 32_768;
/** What less of a cell than this is in does not show. */
const SHARE_MIN = 1 / 16;

/**
 * A letter a cell, for `cells` equal stretches: the state furthest from done that a sixteenth of the
 * stretch is in. Of a large stretch only some pages are looked at, evenly spread and always the
 * same, so that the picture does not flicker.
 */
export function foldCells({ count, cells, stateOf }: FoldCellsOptions): string {
  const made = Math.min(count, cells);
  const looksMax = Math.max(1, Math.floor(LOOKS_MAX / Math.max(1, made)));
  const found = new Uint32Array(MAP_LETTERS.length);
  let text = "";
  for (let cell = 0; cell < made; cell++) {
    const first = Math.floor((cell * count) / made);
    const size = Math.floor(((cell + 1) * count) / made) - first;
    const looks = Math.min(size, looksMax);
    found.fill(0);
    for (let look = 0; look < looks; look++) {
      const index = first + Math.floor((look * size) / looks);
      found[MAP_LETTERS.indexOf(stateOf(index))]!++;
    }
    // There are fewer states than sixteenths, so that one of them always has its share.
    text += MAP_LETTERS[found.findIndex((seen) => seen > 0 && seen >= looks * SHARE_MIN)]!;
  }
  return text;
}

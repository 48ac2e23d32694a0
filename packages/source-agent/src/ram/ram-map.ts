/** What is known of each page, for the map that people look at. */
import { foldCells, type PageHashes } from "@vmferry/agent";
import { limits, type MapArea, type MapLetter } from "@vmferry/protocol";
import { HOT_HEAT, type HeatMap } from "./heat-map.ts";
import type { HeldPages } from "./held-pages.ts";

export interface KnownPages {
  readonly hashes: PageHashes;
  readonly held: HeldPages;
  readonly heat: HeatMap;
  readonly pass: number;
  /** What was not sent follows the guest. */
  readonly isDrained: boolean;
}

export function mapOfRam(
  { hashes, held, heat, pass, isDrained }: KnownPages,
  cells: number,
): MapArea {
  const stateOf = (index: number): MapLetter => {
    if (held.has(index)) return "k";
    const state = hashes.stateOf(index);
    if (state === "unknown") return isDrained ? "m" : "w";
    const warmth = heat.now(index, pass);
    if (warmth > 0) return warmth >= HOT_HEAT ? "h" : "d";
    return state === "zero" ? "z" : "s";
  };
  return {
    totalBytes: hashes.pages * limits.PAGE_BYTES,
    cells: foldCells({ count: hashes.pages, cells, stateOf }),
  };
}

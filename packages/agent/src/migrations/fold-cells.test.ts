import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAP_LETTERS, type MapLetter } from "@vmferry/protocol";
import { foldCells } from "./fold-cells.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

function fold(states: string, cells: number): string {
  const stateOf = (index: number): MapLetter => states[index] as MapLetter;
  return foldCells({ count: states.length, cells, stateOf });
}

describe("a map of cells", () => {
  it("has one cell a page where there are no more pages than cells", () => {
    expect(fold("wszdhk", 6)).toBe("wszdhk");
    expect(fold("wszdhk", 4096)).toBe("wszdhk");
  });

  it("has no cell where there is nothing", () => {
    expect(fold("", 10)).toBe("");
  });

  it("shows the state furthest from done that a sixteenth of a cell is in", () => {
    expect(fold("s".repeat(15) + "d", 1)).toBe("d");
    expect(fold("s".repeat(16) + "d", 1)).toBe("s");
    expect(fold("s".repeat(12) + "dhkw", 1)).toBe("k");
    expect(fold("zzzzzzzzs", 1)).toBe("s");
  });

  it("covers every page with cells whose sizes differ by one at most", () => {
    expect(fold("wwzzzsss", 3)).toBe("wzs");
    expect(fold("wwsszzdd", 4)).toBe("wszd");
  });

  it("takes the same few looks at a large guest as at a larger one", () => {
    for (const count of [1e6, 1e8]) {
      let looks = 0;
      const indexes = new Set<number>();
      const stateOf = (index: number): MapLetter => {
        looks++;
        indexes.add(index);
        return index < count / 2 ? "s" : "w";
      };
      const cells = foldCells({ count, cells: 1024, stateOf });
      expect(cells).toBe("s".repeat(512) + "w".repeat(512));
      expect(looks).toBeLessThanOrEqual(32_768);
      expect(indexes.size).toBe(looks);
    }
  });

  it("has a cell for each of what was asked, of states that are there, whatever they are", () => {
    const letters = fc.array(fc.constantFrom(...MAP_LETTERS), { maxLength: 200 });
    fc.assert(
      fc.property(letters, fc.integer({ min: 1, max: 300 }), (states, cells) => {
        const text = states.join("");
        const map = fold(text, cells);
        expect(map).toHaveLength(Math.min(states.length, cells));
        for (const letter of map) expect(text).toContain(letter);
      }),
      { seed },
    );
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PageSet } from "./page-set.ts";

const BLOCKS = [{ lengthBytes: 4096 * 100 }, { lengthBytes: 4096 * 3 }, { lengthBytes: 4096 * 70 }];

describe("a set of pages", () => {
  it("tells whether adding and removing changed it, and counts", () => {
    const set = new PageSet(BLOCKS);
    expect(set.add(0, 99)).toBe(true);
    expect(set.add(0, 99)).toBe(false);
    expect(set.count).toBe(1);
    expect(set.remove(0, 98)).toBe(false);
    expect(set.remove(0, 99)).toBe(true);
    expect(set.count).toBe(0);
  });

  it("covers runs inside its blocks alone", () => {
    const set = new PageSet(BLOCKS);
    expect(set.covers({ block: 1, first: 0, count: 3 })).toBe(true);
    expect(set.covers({ block: 1, first: 1, count: 3 })).toBe(false);
    expect(set.covers({ block: 1, first: 1, count: 0 })).toBe(false);
    expect(set.covers({ block: 3, first: 0, count: 1 })).toBe(false);
  });

  it("gives its runs in ascending order, none longer than asked for", () => {
    const pages = fc.array(
      fc
        .tuple(fc.nat(2), fc.nat(99))
        .filter(([block, page]) => page < BLOCKS[block]!.lengthBytes / 4096),
      { maxLength: 120 },
    );
    fc.assert(
      fc.property(pages, fc.integer({ min: 1, max: 20 }), (chosen, countMax) => {
        const set = new PageSet(BLOCKS);
        for (const [block, page] of chosen) set.add(block, page);
        const found: string[] = [];
        for (const { block, first, count } of set.runs(countMax)) {
          expect(count).toBeLessThanOrEqual(countMax);
          for (let page = first; page < first + count; page++) found.push(`${block}:${page}`);
        }
        const expected = [...new Set(chosen.map(([block, page]) => `${block}:${page}`))];
        const order = (key: string): number => {
          const [block, page] = key.split(":").map(Number);
          return block! * 1000 + page!;
        };
        expect(found).toEqual(expected.sort((a, b) => order(a) - order(b)));
        expect(set.count).toBe(found.length);
      }),
    );
  });
});

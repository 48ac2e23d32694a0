import { describe, expect, test } from "vitest";
import { HeatMap, HOT_HEAT, STRETCH_PAGES } from "./heat-map.ts";

/** Lets page 3 come in these passes; the heat after each. */
function heats(passes: readonly number[]): number[] {
  const map = new HeatMap(8);
  return passes.map((pass) => map.came(3, pass));
}

describe("the heat of a page", () => {
  test("is 1 when it comes again for the first time", () => {
    expect(heats([2])).toEqual([1]);
    expect(heats([40])).toEqual([1]);
  });

  test("grows by one with every pass that brings it", () => {
    expect(heats([2, 3, 4, 5])).toEqual([1, 2, 3, 4]);
  });

  test("makes a page hot that came in two passes in a row", () => {
    const [first, second] = heats([2, 3]);
    expect(first).toBeLessThan(HOT_HEAT);
    expect(second).toBeGreaterThanOrEqual(HOT_HEAT);
  });

  test("is halved by every pass that does not bring it", () => {
    expect(heats([2, 3, 4, 5, 6, 7, 8, 9, 11])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 5]);
    expect(heats([2, 3, 4, 5, 6, 7, 8, 9, 12]).at(-1)).toBe(3);
    expect(heats([2, 3, 4, 5, 6, 7, 8, 9, 13]).at(-1)).toBe(2);
  });

  test("is forgotten after a long absence, however hot the page was", () => {
    const hot = Array.from({ length: 300 }, (_, pass) => pass + 2);
    expect(heats([...hot, 320]).at(-1)).toBe(1);
    // 32 absent passes: a shift by 32 would be a shift by nothing.
    expect(heats([...hot, 301 + 33]).at(-1)).toBe(1);
    expect(heats([...hot, 301 + 1000]).at(-1)).toBe(1);
  });

  test("stops growing at what a byte holds", () => {
    const passes = Array.from({ length: 400 }, (_, pass) => pass + 2);
    expect(heats(passes).at(-1)).toBe(255);
  });

  test("goes on when the number of the pass outgrows 16 bits", () => {
    expect(heats([65_534, 65_535, 65_536, 65_537])).toEqual([1, 2, 3, 4]);
  });

  test("is that of one page alone", () => {
    const map = new HeatMap(8);
    map.came(0, 2);
    map.came(0, 3);
    expect(map.came(1, 3)).toBe(1);
    expect(map.came(7, 3)).toBe(1);
  });
});

describe("the heat of a page now", () => {
  test("is what it was when the page came, in that pass and the one after it", () => {
    const map = new HeatMap(8);
    for (const pass of [2, 3, 4]) map.came(3, pass);
    expect([map.now(3, 4), map.now(3, 5)]).toEqual([3, 3]);
  });

  test("is halved by every further pass, and changes nothing", () => {
    const map = new HeatMap(8);
    for (const pass of [2, 3, 4]) map.came(3, pass);
    expect([map.now(3, 6), map.now(3, 7), map.now(3, 50)]).toEqual([1, 0, 0]);
    expect(map.came(3, 5)).toBe(4);
  });

  test("is nothing for a page that never came again", () => {
    expect(new HeatMap(8).now(5, 7)).toBe(0);
  });
});

/** All pages of some stretches come in the second pass, and each of these in its passes. */
function mapOf(
  passes: Readonly<Record<number, readonly number[]>>,
  { busyStretches = [0] }: { readonly busyStretches?: readonly number[] } = {},
): HeatMap {
  const map = new HeatMap(100_000);
  for (const stretch of busyStretches) {
    for (let at = 0; at < STRETCH_PAGES; at++) map.counted(stretch * STRETCH_PAGES + at, 2);
  }
  for (let pass = 3; pass <= 9; pass++) {
    for (const [page, its] of Object.entries(passes)) {
      if (its.includes(pass)) map.counted(Number(page), pass);
    }
  }
  return map;
}

describe("the hottest pages", () => {
  const hottest = (
    map: HeatMap,
    pass: number,
    { countMax = 100, missing = (index: number) => map.lastPass(index) > 0 } = {},
  ): Promise<number[]> => map.hottest({ pass, countMax, isMissing: missing });

  test("are those that came most often, however long ago", async () => {
    const map = mapOf({ 7: [4, 5, 6], 8: [3, 4], 9: [3], 50: [3, 4, 5, 6, 7] });
    expect(await hottest(map, 20)).toEqual([50, 7, 8, 9]);
  });

  test("are before them what has just come, were it for the second time", async () => {
    const map = mapOf({ 1: [7], 3: [4, 5], 4: [6, 7], 5: [3] });
    expect(await hottest(map, 7)).toEqual([4, 1, 3, 5]);
  });

  test("are before all others those around which little came, of these the hottest first", async () => {
    const map = mapOf({ 50: [3, 4, 5, 6, 7], 90_000: [3], 90_001: [3, 4] });
    expect(await hottest(map, 20)).toEqual([90_001, 90_000, 50]);
  });

  test("are also those that never came, where little did and the dest lacks them", async () => {
    const map = mapOf({ 50: [3], 90_000: [3] });
    const missing = (index: number): boolean => [50, 51, 90_000, 90_007].includes(index);
    expect(await hottest(map, 20, { missing })).toEqual([90_000, 90_007, 50]);
  });

  test("are none that the dest has", async () => {
    const map = mapOf({ 1: [3], 2: [3], 3: [3] });
    expect(await hottest(map, 20, { missing: (index) => index !== 2 && index < 64 })).toEqual([
      1, 3,
    ]);
  });

  test("are no more than are asked for", async () => {
    const map = mapOf({ 1: [3], 2: [3], 3: [3, 4], 4: [3] });
    expect(await hottest(map, 20, { countMax: 2 })).toEqual([3, 1]);
  });
});

describe("a stretch of memory", () => {
  test("is quiet while at most a quarter of it came after the first pass", () => {
    const map = new HeatMap(1000);
    for (let page = 64; page < 80; page++) map.counted(page, 2);
    expect([map.isQuiet(0), map.isQuiet(1)]).toEqual([true, true]);
    map.counted(80, 3);
    expect(map.isQuiet(1)).toBe(false);
  });

  test("may be the last, and shorter than others", () => {
    const map = new HeatMap(64 + 17);
    for (let page = 64; page < 80; page++) map.counted(page, 2);
    expect(map.isQuiet(1)).toBe(true);
    map.counted(80, 2);
    expect(map.isQuiet(1)).toBe(false);
  });
});

test("the last pass of a page stays the last, however many there are", () => {
  const map = new HeatMap(8);
  map.counted(3, 2 ** 16 + 1);
  expect(map.lastPass(3)).toBeGreaterThan(2);
});

import { describe, expect, test } from "vitest";
import { HeatMap, HOT_HEAT } from "./heat-map.ts";

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

describe("the hottest pages", () => {
  /** Each page of these comes in its passes. */
  function mapOf(passes: Readonly<Record<number, readonly number[]>>): HeatMap {
    const map = new HeatMap(100_000);
    for (let pass = 2; pass <= 9; pass++) {
      for (const [page, its] of Object.entries(passes)) {
        if (its.includes(pass)) map.came(Number(page), pass);
      }
    }
    return map;
  }

  test("are those that came most often, and of late", async () => {
    const map = mapOf({ 90_000: [2, 3, 4, 5, 6], 7: [4, 5, 6], 8: [2, 3], 9: [2], 50_000: [5, 6] });
    expect(await map.hottest(7, 100)).toEqual([90_000, 7, 50_000]);
  });

  test("are before them what has just come, were it for the first time", async () => {
    const map = mapOf({ 1: [7], 2: [5, 6], 3: [4, 5, 6], 4: [6, 7], 5: [2] });
    expect(await map.hottest(7, 100)).toEqual([4, 1, 3, 2]);
  });

  test("are no more than are asked for", async () => {
    const map = mapOf({ 1: [2, 3], 2: [2, 3], 3: [2, 3, 4], 4: [2, 3] });
    expect(await map.hottest(4, 2)).toEqual([3, 1]);
  });
});

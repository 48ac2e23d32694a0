import { describe, expect, test } from "vitest";
import { ruleOf } from "./broken-rule.ts";
import { openFrame, RunTable } from "./bulk-frame.ts";
import { naiveFrame, naivePages, naiveRun, type NaiveRun } from "./naive-frame.ts";

function runsRefusal(frame: Buffer, blockPages: number): string {
  return ruleOf(() => {
    new RunTable().open(frame, openFrame(frame), blockPages);
  });
}

function run(first: number, pages: number): NaiveRun {
  return { first, pages, zero: false };
}

function zeroRun(first: number, pages: number): NaiveRun {
  return { first, pages, zero: true };
}

describe("a run table", () => {
  const BLOCK_PAGES = 1000;

  test("says for each run where it begins, how long it is, and whether it is zero", () => {
    const frame = naivePages([run(10, 2), zeroRun(12, 988), run(0, 1)]);
    const table = new RunTable();
    table.open(frame, openFrame(frame), BLOCK_PAGES);
    expect(table.count).toBe(3);
    expect(table.dataOffset).toBe(32 + 3 * 8);
    expect(table.dataPages).toBe(3);
    const runs = [0, 1, 2].map((i) => [table.first(i), table.pages(i), table.zero(i)]);
    expect(runs).toEqual([
      [10, 2, false],
      [12, 988, true],
      [0, 1, false],
    ]);
    expect(frame.subarray(table.dataOffset)).toHaveLength(3 * 4096);
  });

  test("can be opened again for the next frame", () => {
    const table = new RunTable();
    for (const runs of [[run(9, 1), zeroRun(1, 2)], [zeroRun(3, 1)]]) {
      const frame = naivePages(runs);
      table.open(frame, openFrame(frame), BLOCK_PAGES);
      expect(table.count).toBe(runs.length);
      expect(table.dataPages).toBe(runs.filter(({ zero }) => !zero).length);
      expect(table.first(runs.length - 1)).toBe(runs.at(-1)!.first);
    }
  });

  test.each([
    ["a run of no pages", [run(1, 0)], "empty run"],
    ["a zero run of no pages", [zeroRun(1, 0)], "empty run"],
    ["an empty run among others", [run(0, 1), run(1, 0)], "empty run"],
    ["a run that begins at the block's end", [run(1000, 1)], "run outside its block"],
    ["a run that leaves its block by a page", [run(999, 2)], "run outside its block"],
    ["a zero run that does", [zeroRun(0, 1001)], "run outside its block"],
    ["the longest zero run", [zeroRun(0, 2 ** 31 - 1)], "run outside its block"],
    ["the farthest page", [zeroRun(2 ** 32 - 1, 1)], "run outside its block"],
    ["a sum that would wrap at 2^32", [zeroRun(2 ** 32 - 1, 2)], "run outside its block"],
    ["a page twice", [run(5, 1), run(5, 1)], "runs overlap"],
    ["a page as data and as zero", [run(5, 1), zeroRun(0, 6)], "runs overlap"],
    ["a run inside another", [zeroRun(0, 1000), run(7, 1)], "runs overlap"],
    ["the same, far apart in the table", [run(7, 1), zeroRun(900, 9), zeroRun(3, 5)], "overlap"],
  ])("with %s is refused", (_, runs, rule) => {
    expect(runsRefusal(naivePages(runs), BLOCK_PAGES)).toContain(rule);
  });

  test("is refused when the frame has more or less data than its runs", () => {
    const payload = (pages: number): Buffer =>
      Buffer.concat([naiveRun(run(0, 2)), Buffer.alloc(pages * 4096)]);
    for (const pages of [0, 1, 3, 63]) {
      const frame = naiveFrame({ kind: 2, runs: 1, payload: payload(pages) });
      expect(runsRefusal(frame, BLOCK_PAGES)).toBe("runs and data disagree");
    }
    expect(runsRefusal(naivePages([run(0, 2)]), BLOCK_PAGES)).toBe("accepted");
  });

  test("may have its runs in any order, touching each other, up to the block's last page", () => {
    const runs = [run(999, 1), zeroRun(998, 1), zeroRun(0, 500), run(500, 1), zeroRun(501, 497)];
    expect(runsRefusal(naivePages(runs), BLOCK_PAGES)).toBe("accepted");
  });

  test("of 256 runs in descending order is checked as well", () => {
    const runs = Array.from({ length: 256 }, (_, index) => zeroRun(3 * (255 - index), 3));
    expect(runsRefusal(naivePages(runs), BLOCK_PAGES)).toBe("accepted");
    expect(runsRefusal(naivePages([...runs.slice(1), zeroRun(765, 4)]), BLOCK_PAGES)).toBe(
      "accepted",
    );
    expect(runsRefusal(naivePages([...runs.slice(1), zeroRun(764, 4)]), BLOCK_PAGES)).toBe(
      "runs overlap",
    );
  });
});

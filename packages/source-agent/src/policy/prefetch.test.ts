import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  planPrefetch,
  prefetchBudgetPages,
  type PrefetchInput,
  type PrefetchStream,
} from "./prefetch.ts";

const BLOCK_PAGES = 10_000;

function fault(page: number, more: Partial<PrefetchInput> = {}): PrefetchInput {
  return {
    block: 0,
    page,
    blockPages: BLOCK_PAGES,
    streams: [],
    budgetPages: 1000,
    isMissing: () => true,
    ...more,
  };
}

/** How many faults a guest takes to read these pages, which are all missing at first. */
function faultsOf(pages: Iterable<number>, budgetPages = 1000): { faults: number; sent: number } {
  const there = new Set<number>();
  let streams: readonly PrefetchStream[] = [];
  let faults = 0;
  for (const page of pages) {
    if (there.has(page)) continue;
    faults++;
    there.add(page);
    const isMissing = (each: number): boolean => !there.has(each);
    const plan = planPrefetch(fault(page, { streams, budgetPages, isMissing }));
    for (const each of plan.pages) there.add(each);
    streams = plan.streams;
  }
  return { faults, sent: there.size };
}

function* upwards(from: number, count: number): Iterable<number> {
  for (let page = from; page < from + count; page++) yield page;
}

describe("pages sent along with a fault", () => {
  it("are a few around a fault that stands alone, those ahead of it first", () => {
    const { pages } = planPrefetch(fault(100));
    expect(pages).toEqual([101, 102, 103, 104, 105, 106, 99, 98]);
  });

  it("stay within the block", () => {
    expect(planPrefetch(fault(0)).pages).toEqual([1, 2, 3, 4, 5, 6]);
    expect(planPrefetch(fault(BLOCK_PAGES - 1)).pages).toEqual([BLOCK_PAGES - 2, BLOCK_PAGES - 3]);
  });

  it("become more as the guest reads on, up to a limit", () => {
    let streams: readonly PrefetchStream[] = [];
    const counts: number[] = [];
    let page = 0;
    for (let turn = 0; turn < 7; turn++) {
      const plan = planPrefetch(fault(page, { streams }));
      streams = plan.streams;
      counts.push(plan.pages.length);
      page = streams[0]!.nextPage;
    }
    expect(counts).toEqual([6, 16, 32, 64, 128, 128, 128]);
  });

  it("save a guest that reads on most of its faults", () => {
    expect(faultsOf(upwards(0, 4096)).faults).toBeLessThan(45);
  });

  it("save two guests that read on in turn as many", () => {
    const both = Array.from({ length: 2048 }, (_, index) => [index, 5000 + index]).flat();
    expect(faultsOf(both).faults).toBeLessThan(70);
  });

  it("cost a guest that jumps about a few pages a fault", () => {
    const scattered = Array.from({ length: 300 }, (_, index) => (index * 7919) % BLOCK_PAGES);
    const { faults, sent } = faultsOf(scattered);
    expect(faults).toBeGreaterThan(200);
    expect(sent / faults).toBeLessThan(10);
  });

  it("are none without a budget", () => {
    expect(planPrefetch(fault(5, { budgetPages: 0 })).pages).toEqual([]);
    expect(planPrefetch(fault(5, { budgetPages: -3 })).pages).toEqual([]);
    expect(faultsOf(upwards(0, 50), 0)).toEqual({ faults: 50, sent: 50 });
  });

  it("leave out what is there already, and another block's streams alone", () => {
    const isMissing = (page: number): boolean => page % 2 === 0;
    expect(planPrefetch(fault(100, { isMissing })).pages).toEqual([102, 104, 106, 98]);
    const streams = [{ block: 1, nextPage: 100, windowPages: 64 }];
    const plan = planPrefetch(fault(100, { streams }));
    expect(plan.pages).toHaveLength(8);
    expect(plan.streams.at(-1)).toEqual(streams[0]);
  });

  it("are never twice, never the fault itself, never outside, never over the budget", () => {
    const anyStream = fc.record({
      block: fc.nat(1),
      nextPage: fc.nat(60),
      windowPages: fc.integer({ min: 1, max: 128 }),
    });
    fc.assert(
      fc.property(
        fc.nat(59),
        fc.nat(40),
        fc.array(anyStream, { maxLength: 16 }),
        fc.uniqueArray(fc.nat(59)),
        (page, budgetPages, streams, there) => {
          const isMissing = (each: number): boolean => !there.includes(each);
          const input = fault(page, { blockPages: 60, budgetPages, streams, isMissing });
          const plan = planPrefetch(input);
          expect(new Set(plan.pages).size).toBe(plan.pages.length);
          expect(plan.pages.length).toBeLessThanOrEqual(budgetPages);
          for (const each of plan.pages) {
            expect(each >= 0 && each < 60 && each !== page && isMissing(each)).toBe(true);
          }
          expect(plan.streams.length).toBeLessThanOrEqual(16);
          expect(plan.streams[0]!.nextPage).toBeGreaterThan(page);
        },
      ),
    );
  });
});

describe("the budget for pages that nobody asked for", () => {
  const link = { linkBytesPerSecond: 125_000_000, roundTripMs: 2, pageBytes: 4096 };

  it("is what the link carries in a round trip, and in five milliseconds at most", () => {
    expect(prefetchBudgetPages({ ...link, outstandingPages: 0 })).toBe(61);
    expect(prefetchBudgetPages({ ...link, roundTripMs: 0, outstandingPages: 0 })).toBe(30);
    expect(prefetchBudgetPages({ ...link, roundTripMs: 80, outstandingPages: 0 })).toBe(152);
  });

  it("is less what is on its way, and nothing on a link that is slow or unknown", () => {
    expect(prefetchBudgetPages({ ...link, outstandingPages: 60 })).toBe(1);
    expect(prefetchBudgetPages({ ...link, outstandingPages: 200 })).toBe(0);
    const slow = { ...link, linkBytesPerSecond: 500_000, outstandingPages: 0 };
    expect(prefetchBudgetPages(slow)).toBe(0);
    expect(prefetchBudgetPages({ ...slow, linkBytesPerSecond: null })).toBe(0);
  });
});

import { beforeEach, describe, expect, test } from "vitest";
import { limits } from "@vmferry/protocol";
import { FakePageFile, FetchBench, settled } from "./fetch-bench.ts";

const { PAGE_BYTES } = limits;
const DIGEST = "d1".repeat(32);

let bench: FetchBench;
beforeEach(() => {
  bench = new FetchBench();
});

describe("a page file", () => {
  const data = (page: number): Buffer => Buffer.alloc(PAGE_BYTES, page);

  test("brings what is missing without any lane, to the end", async () => {
    const file = new FakePageFile();
    bench.missing(0, 5, 3).missing(1, 0, 2).fetchingFrom(file);
    await file.gives([
      { block: 1, first: 0, count: 2, content: "zero" },
      { block: 0, first: 7, count: 1, content: data(7) },
      { block: 0, first: 6, count: 1, content: data(6) },
    ]);
    expect(bench.placer.placed).toEqual(["1:0=0", "1:1=0", "|", "0:7=7", "0:6=6", "|"]);
    expect(bench.placer.isEnded).toBe(false);
    await file.gives([{ block: 0, first: 5, count: 1, content: data(5) }]);
    bench.clock.advance(5000);
    expect(await bench.fetch.whole).toEqual({ ramDigest: DIGEST, equal: null });
    expect(bench.fetch.counters).toMatchObject({ placedPages: 5, zeroPages: 2, filePages: 5 });
    expect(file.isClosed).toBe(true);
  });

  test("and the lanes bring each page once between them", async () => {
    const file = new FakePageFile();
    bench.missing(0, 5, 4);
    bench.lanes(1);
    bench.fetchingFrom(file);
    await settled();
    bench.pages("background", [[5, 2]]);
    await file.gives([
      { block: 0, first: 8, count: 1, content: data(8) },
      { block: 0, first: 6, count: 1, content: data(6) },
    ]);
    bench.pages("background", [[7, 2]]);
    await settled();
    const places = bench.placer.placed.filter((each) => each !== "|");
    expect(places.sort()).toEqual(["0:5=5", "0:6=6", "0:7=7", "0:8=8"]);
    expect(bench.fetch.counters).toMatchObject({ placedPages: 4, filePages: 1, twicePages: 1 });
    expect(bench.placer.isEnded).toBe(true);
  });

  test("is asked for what vCPUs wait for, as the source is", async () => {
    const file = new FakePageFile();
    bench.missing(0, 5, 3);
    bench.lanes(1);
    bench.fetchingFrom(file);
    await settled();
    bench.fetch.requested({ block: 0, firstPage: 6, pageCount: 1 });
    expect([file.asks, bench.said("request").length]).toEqual([1, 1]);
    expect(file.wanted!.asked()).toEqual([{ block: 0, firstPage: 6, pages: 1 }]);
    await file.gives([{ block: 0, first: 6, count: 1, content: data(6) }]);
    expect(file.wanted!.asked()).toEqual([]);
    expect(bench.faultSeconds).toHaveLength(1);
  });

  test("that has no more leaves the rest to the lanes", async () => {
    const file = new FakePageFile();
    bench.missing(0, 5, 2).fetchingFrom(file);
    await file.gives([{ block: 0, first: 6, count: 1, content: data(6) }]);
    await file.gives(null);
    bench.lanes(1);
    await settled();
    expect(bench.said("missing")[0]).toMatchObject({ runs: [{ first: 5, count: 1 }] });
    bench.pages("background", [[5, 1]]);
    await settled();
    expect(bench.placer.isEnded).toBe(true);
  });

  test("does not end the memory while QEMU still takes a page of it", async () => {
    const file = new FakePageFile();
    bench.missing(0, 5, 1).fetchingFrom(file);
    const goOn = bench.holdFlushes();
    await file.gives([{ block: 0, first: 5, count: 1, content: data(5) }]);
    bench.lanes(1);
    await settled();
    bench.pages("background", [[5, 1]]);
    await settled();
    expect(bench.fetch.counters.twicePages).toBe(1);
    expect(bench.placer.isEnded).toBe(false);
    goOn();
    await settled();
    expect(bench.placer.isEnded).toBe(true);
  });

  test("is not looked into any more when the guest is gone", async () => {
    const file = new FakePageFile();
    bench.missing(0, 5, 1).fetchingFrom(file);
    bench.fetch.close();
    expect(file.isClosed).toBe(true);
    await file.gives([{ block: 0, first: 5, count: 1, content: data(5) }]);
    expect(bench.placer.placed).toEqual([]);
  });
});

import { afterEach, describe, expect, test } from "vitest";
import { CloseCode, limits } from "@vmferry/protocol";
import { ServeBench, settled } from "./serve-bench.ts";
import type { PageServiceOptions } from "./page-service.ts";

let bench: ServeBench;
afterEach(async () => {
  bench.service.stop();
  await bench.running;
});

function serve(stored: number, options: Partial<PageServiceOptions> = {}): void {
  bench = new ServeBench(stored, options);
}

describe("in the background", () => {
  test("nothing goes out, and nothing is read, before the dest has said what it lacks", async () => {
    serve(100);
    await settled();
    bench.urgent.say({ kind: "missing", block: 0, runs: [{ first: 0, count: 5 }], last: false });
    await settled();
    expect(bench.background.frames).toEqual([]);
    expect(bench.reads).toBe(0);
    bench.urgent.say({ kind: "missing", block: 0, runs: [{ first: 7, count: 2 }], last: true });
    await settled();
    expect(bench.background.frames.flatMap(({ pages }) => pages)).toEqual([
      ..."01234".split("").map((page) => `0:${page}`),
      "0:7",
      "0:8",
    ]);
    expect(bench.service.remainingPages).toBe(0);
  });

  test("pages ascend, those of zeros without data, and no more than a small window is under way", async () => {
    serve(4000);
    await bench.missing(4000);
    const pages = bench.background.frames.flatMap((frame) => frame.pages);
    const expected = Array.from({ length: pages.length }, (_, page) => page);
    expect(pages).toEqual(expected.map((page) => `0:${page}${page % 100 === 99 ? "z" : ""}`));
    const underWay = bench.backgroundBytes;
    expect(underWay).toBeGreaterThan(120_000);
    expect(underWay).toBeLessThan(128 * 1024 + limits.FRAME_BYTES_MAX);
    // No more is read than the window asks for, and a few frames.
    expect(bench.reads).toBeLessThan(bench.background.frames.length + 8);
    await bench.placeAll("background");
    expect(bench.backgroundBytes).toBeGreaterThan(120_000);
  });

  test("all of it goes out as the dest places it, and then SERVED with the digest", async () => {
    serve(500);
    await bench.missing(500);
    while (bench.background.frames.length > 0) {
      expect(bench.urgent.messages).toEqual([]);
      await bench.placeAll("background");
    }
    expect(bench.service.counters).toMatchObject({ sentPages: 500, resentPages: 0 });
    expect(bench.urgent.messages).toEqual([{ kind: "served", ramDigest: "d1".repeat(32) }]);
  });

  test("what is hot goes first, in its order, wherever it is, if the dest lacks it", async () => {
    serve(4000);
    const hot = [1500, 3999, 70, 20].map((page) => ({ block: 0, page }));
    bench.service.setPush({ hot });
    await settled();
    const runs = [
      { first: 0, count: 70 },
      { first: 71, count: 3929 },
    ];
    bench.urgent.say({ kind: "missing", block: 0, runs, last: true });
    await settled();
    const pages = bench.background.frames.flatMap((frame) => frame.pages);
    expect(pages.slice(0, 5)).toEqual(["0:1500", "0:3999z", "0:20", "0:0", "0:1"]);
    expect(new Set(pages).size).toBe(pages.length);
  });

  test("nothing else goes out before it is due, also of what becomes known to be hot later", async () => {
    serve(4000);
    bench.service.setPush({ isRestDue: false });
    await bench.missing(4000);
    expect(bench.background.frames).toEqual([]);
    bench.service.setPush({ hot: [{ block: 0, page: 1500 }] });
    await settled();
    expect(bench.background.frames.flatMap((frame) => frame.pages)).toEqual(["0:1500"]);
    await bench.request(7);
    expect(bench.urgent.frames[0]!.pages).toEqual(["0:7"]);
    bench.service.setPush({ isRestDue: true });
    await bench.later(30);
    expect(bench.background.frames.length).toBeGreaterThan(1);
  });

  test("goes all that is stored to a dest that lacks all of it, and that says so once", async () => {
    serve(500);
    await settled();
    bench.urgent.say({ kind: "all" });
    await settled();
    while (bench.background.frames.length > 0) await bench.placeAll("background");
    expect(bench.service.counters).toMatchObject({ sentPages: 500, resentPages: 0 });
    expect(bench.urgent.closeCode).toBeNull();
    bench.urgent.say({ kind: "all" });
    await settled();
    expect(bench.urgent.closeCode).toBe(CloseCode.PROTOCOL_VIOLATION);
  });

  test("a dest that lacks all of it has not listed some of it before", async () => {
    serve(500);
    await settled();
    bench.urgent.say({ kind: "missing", block: 0, runs: [{ first: 0, count: 5 }], last: false });
    bench.urgent.say({ kind: "all" });
    await settled();
    expect(bench.urgent.closeCode).toBe(CloseCode.PROTOCOL_VIOLATION);
  });

  test("goes on behind the last page that was asked for", async () => {
    serve(4000);
    await bench.missing(4000);
    await bench.request(3000);
    await bench.later(30);
    // What was picked before is on its way.
    for (let round = 0; round < 3; round++) await bench.placeAll("background");
    expect(bench.background.frames.at(-1)!.pages[0]).toMatch(/^0:30\d\d$/);
  });

  test("nothing else goes out while pages are asked for one soon after the other, and then it goes on", async () => {
    serve(4000);
    await bench.missing(4000);
    for (let page = 0; page < 5; page++) {
      await bench.request(3000 + page);
      await bench.placeAll("background");
      await bench.placeAll("urgent");
    }
    expect(bench.background.frames).toEqual([]);
    await bench.later(10);
    expect(bench.background.frames.length).toBeGreaterThan(0);
  });

  test("goes on by itself when what was asked for has used the bandwidth limit up before", async () => {
    serve(4000, { bandwidthBytesPerSecond: 1_000_000 });
    bench.service.setPush({ isRestDue: false });
    await bench.missing(4000);
    for (let page = 0; page < 40; page++) await bench.request(100 * page);
    bench.service.setPush({ isRestDue: true });
    await settled();
    expect(bench.background.frames).toEqual([]);
    await bench.later(500);
    expect(bench.background.frames.length).toBeGreaterThan(0);
  });

  test("keeps to the bandwidth limit, which can be changed, and which faults do not wait for", async () => {
    serve(4000, { bandwidthBytesPerSecond: 1000 });
    await bench.missing(4000);
    const sent = bench.background.frames.length;
    expect(sent).toBeLessThanOrEqual(1);
    await bench.request(3000);
    expect(bench.urgent.frames[0]!.pages).toEqual(["0:3000"]);
    await bench.later(100);
    expect(bench.background.frames).toHaveLength(sent);
    bench.service.setBandwidthLimit(null);
    await settled();
    expect(bench.background.frames.length).toBeGreaterThan(sent);
  });
});

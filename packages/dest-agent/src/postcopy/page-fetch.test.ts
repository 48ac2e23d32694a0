import { zstdCompressSync } from "node:zlib";
import { beforeEach, describe, expect, test } from "vitest";
import { PeerError } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { CloseCode, encodePageMessage, FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import {
  FakePageFile,
  FakePageLink,
  FetchBench,
  frameOf,
  pagesFrame,
  settled,
  type Runs,
} from "./fetch-bench.ts";

const { MISSING_RUNS_MAX, PAGE_BYTES, REQUESTS_MAX } = limits;
const DIGEST = "d1".repeat(32);

let bench: FetchBench;
beforeEach(() => {
  bench = new FetchBench();
});

describe("a new pair of lanes", () => {
  test("is told what is missing once QEMU is loaded, and not before both lanes stand", async () => {
    bench.missing(0, 5, 3).missing(0, 100, 1).missing(1, 0, 10);
    bench.fetch.attach("urgent", 1, bench.urgent);
    bench.fetch.begin(bench.placer);
    await settled();
    expect(bench.urgent.said).toEqual([]);
    bench.fetch.attach("background", 1, bench.background);
    await settled();
    expect(bench.urgent.said).toEqual([
      {
        kind: "missing",
        block: 0,
        runs: [
          { first: 5, count: 3 },
          { first: 100, count: 1 },
        ],
        last: false,
      },
      { kind: "missing", block: 1, runs: [{ first: 0, count: 10 }], last: true },
    ]);
    expect(bench.background.said).toEqual([]);
    expect(bench.fetch.isConnected).toBe(true);
  });

  test("hears of nothing missing, too", async () => {
    await bench.fetching();
    expect(bench.urgent.said).toEqual([{ kind: "missing", block: 0, runs: [], last: true }]);
  });

  test("is told in a word of all that the source has told, where that was agreed", async () => {
    bench = new FetchBench({ maySayAll: true });
    await bench.missing(0, 5, 3).missing(0, 100, 1).fetching();
    expect(bench.urgent.said).toEqual([{ kind: "all" }]);
    bench.fetch.requested({ block: 0, firstPage: 6, pageCount: 1 });
    expect(bench.said("request")).toHaveLength(1);
  });

  test("hears a list all the same once something has come, or of a later pair", async () => {
    bench = new FetchBench({ maySayAll: true });
    await bench.missing(0, 5, 3).fetching();
    bench.lanes(2);
    await settled();
    expect(bench.said("missing")).toHaveLength(1);
    const file = new FakePageFile();
    bench = new FetchBench({ maySayAll: true }).missing(0, 5, 3).fetchingFrom(file);
    await file.gives([{ block: 0, first: 6, count: 1, content: "zero" }]);
    bench.lanes(1);
    await settled();
    expect(bench.said("missing").flatMap(({ runs }) => runs)).toEqual([
      { first: 5, count: 1 },
      { first: 7, count: 1 },
    ]);
  });

  test("hears of more than fits a message in several", async () => {
    for (let page = 0; page < 10_000; page += 2) bench.missing(0, page, 1);
    await bench.fetching();
    const told = bench.said("missing");
    expect(told.map(({ runs, last }) => [runs.length, last])).toEqual([
      [MISSING_RUNS_MAX, false],
      [5000 - MISSING_RUNS_MAX, true],
    ]);
    expect(told[1]!.runs[0]).toEqual({ first: 2 * MISSING_RUNS_MAX, count: 1 });
  });

  test("is told again what vCPUs wait for, those that wait longest first", async () => {
    await bench.missing(0, 0, 50).fetching();
    bench.fetch.requested({ block: 0, firstPage: 7, pageCount: 2 });
    bench.fetch.requested({ block: 0, firstPage: 3, pageCount: 1 });
    bench.lanes(2);
    await settled();
    expect(bench.urgent.said.map(({ kind }) => kind)).toEqual(["missing", "request", "request"]);
    expect(bench.said("request").map(({ firstPage, pages }) => [firstPage, pages])).toEqual([
      [7, 2],
      [3, 1],
    ]);
    expect(bench.fetch.counters.reconnects).toBe(1);
  });

  test("of a later attempt takes the place of both lanes of the earlier one", async () => {
    await bench.fetching();
    const { urgent, background } = bench;
    const later = new FakePageLink();
    bench.fetch.attach("background", 2, later);
    expect([urgent.closeCode, background.closeCode]).toEqual([4004, 4004]);
    expect(later.closeCode).toBeNull();
    expect(bench.fetch.isConnected).toBe(false);
  });

  test("of an earlier attempt, and a lane twice, are closed while a later one stands", async () => {
    await bench.fetching(5);
    for (const attempt of [4, 5]) {
      const late = new FakePageLink();
      bench.fetch.attach("urgent", attempt, late);
      expect(late.closeCode).toBe(CloseCode.SESSION_ENDED);
    }
    expect([bench.urgent.closeCode, bench.fetch.isConnected]).toEqual([null, true]);
    bench.background.end(new PeerError("gone", { code: "peer-lost", closeCode: null }));
    expect(bench.urgent.closeCode).toBe(CloseCode.SESSION_ENDED);
    // The source was started anew, and its clock was set back.
    bench.lanes(2);
    expect(bench.fetch.isConnected).toBe(true);
  });

  test("is closed with 4000 once everything is over", () => {
    bench.fetch.close();
    bench.lanes(1);
    expect([bench.urgent.closeCode, bench.background.closeCode]).toEqual([4000, 4000]);
  });
});

describe("a page that a vCPU waits for", () => {
  test("is asked for at once, and once", async () => {
    await bench.missing(0, 0, 50).fetching();
    bench.fetch.requested({ block: 0, firstPage: 7, pageCount: 1 });
    bench.fetch.requested({ block: 0, firstPage: 7, pageCount: 1 });
    expect(bench.said("request")).toEqual([{ kind: "request", block: 0, firstPage: 7, pages: 1 }]);
  });

  test("is not asked for when it is there, and more than 16 are asked for in several words", async () => {
    await bench.missing(0, 0, 10).missing(0, 12, 30).fetching();
    bench.fetch.requested({ block: 0, firstPage: 0, pageCount: 42 });
    expect(bench.said("request").map(({ firstPage, pages }) => [firstPage, pages])).toEqual([
      [0, 10],
      [12, 16],
      [28, 14],
    ]);
    expect(bench.fetch.counters.requestedPages).toBe(40);
  });

  test("counts with the time from the request to QEMU's socket", async () => {
    await bench.missing(0, 0, 50).fetching();
    bench.fetch.requested({ block: 0, firstPage: 7, pageCount: 1 });
    bench.clock.advance(3);
    const release = bench.holdFlushes();
    bench.pages("urgent", [[6, 3]]);
    await settled();
    bench.clock.advance(5);
    expect(bench.fetch.waits.count).toBe(0);
    release();
    await settled();
    expect(bench.fetch.waits.count).toBe(1);
    expect(bench.fetch.waits.sumUs).toBe(8000);
    expect(bench.faultSeconds).toEqual([0.008]);
  });

  test("beyond the most that may be open is left to come in its turn", async () => {
    await bench.missing(0, 0, 10_000).fetching();
    bench.fetch.requested({ block: 0, firstPage: 0, pageCount: 10_000 });
    expect(bench.fetch.counters.requestedPages).toBe(REQUESTS_MAX);
    bench.pages("urgent", [[0, 1]]);
    await settled();
    bench.fetch.requested({ block: 0, firstPage: 9000, pageCount: 2 });
    expect(bench.fetch.counters.requestedPages).toBe(REQUESTS_MAX + 1);
  });
});

describe("pages that come", () => {
  test("are placed, raw, zero and compressed, and their frames are told of", async () => {
    await bench.missing(0, 0, 50).missing(1, 0, 10).fetching();
    const raw = bench.pages("urgent", [
      [7, 2],
      [20, -2],
    ]);
    await settled();
    expect(bench.placer.placed).toEqual(["0:7=7", "0:8=8", "0:20=0", "0:21=0", "|"]);
    const table = Buffer.from("0000000300000002", "hex");
    const data = zstdCompressSync(Buffer.concat([Buffer.alloc(4096, 3), Buffer.alloc(4096, 4)]));
    const rest = { encoding: FrameEncoding.ZSTD, block: 1, runs: 1 };
    const compressed = frameOf(0, Buffer.concat([table, data]), rest);
    bench.background.arrive(compressed);
    await settled();
    expect(bench.placer.placed.slice(5)).toEqual(["1:3=3", "1:4=4", "|"]);
    expect(bench.said("placed")).toEqual([
      { kind: "placed", lane: "urgent", bytes: raw.length },
      { kind: "placed", lane: "background", bytes: compressed.length },
    ]);
    expect(bench.fetch.counters).toMatchObject({ placedPages: 6, zeroPages: 2, twicePages: 0 });
  });

  test("are told of when QEMU's socket has taken them, and not before", async () => {
    await bench.missing(0, 0, 50).fetching();
    const release = bench.holdFlushes();
    bench.pages("background", [[0, 1]]);
    await settled();
    expect(bench.said("placed")).toEqual([]);
    release();
    await settled();
    expect(bench.said("placed")).toHaveLength(1);
  });

  test("are dropped and counted when they are not missing any more", async () => {
    await bench.missing(0, 0, 3).fetching();
    bench.pages("urgent", [[1, 1]]);
    bench.pages("background", [[0, 5]]);
    await settled();
    expect(bench.placer.placed).toEqual(["0:1=1", "|", "0:0=0", "0:2=2", "|"]);
    expect(bench.fetch.counters.twicePages).toBe(3);
    expect(bench.said("placed")).toHaveLength(2);
  });

  test("of the urgent lane wait for nothing of the background, not even where QEMU takes nothing", async () => {
    await bench.missing(0, 0, 50).fetching();
    const release = bench.holdFlushes();
    bench.pages("background", [[10, 1]]);
    bench.pages("background", [[11, 1]]);
    bench.pages("urgent", [[30, 1]]);
    bench.pages("urgent", [[31, 1]]);
    await settled();
    const unheld = bench.placer.placed.filter((each) => each !== "|");
    expect(unheld).toEqual(["0:10=10", "0:30=30", "0:31=31"]);
    release();
    await settled();
    const order = bench.placer.placed.filter((each) => each !== "|");
    expect(order).toEqual(["0:10=10", "0:30=30", "0:31=31", "0:11=11"]);
  });

  test("of a long run of zeros go to QEMU in pieces", async () => {
    await bench.missing(0, 0, 1000).fetching();
    bench.pages("background", [[0, -1000]]);
    await settled();
    expect(bench.placer.placed.filter((each) => each === "|")).toHaveLength(4);
    expect(bench.fetch.counters).toMatchObject({ placedPages: 1000, zeroPages: 1000 });
  });

  test("of a pair that was lost do not reach QEMU from its queue", async () => {
    await bench.missing(0, 0, 50).fetching();
    const release = bench.holdFlushes();
    bench.pages("background", [[0, 1]]);
    bench.pages("background", [[1, 1]]);
    const { urgent } = bench;
    bench.lanes(2);
    release();
    await settled();
    expect(bench.placer.placed).toEqual(["0:0=0", "|"]);
    expect(urgent.said.filter(({ kind }) => kind === "placed")).toEqual([]);
    bench.pages("background", [[1, 1]]);
    await settled();
    expect(bench.placer.placed.at(-2)).toBe("0:1=1");
  });
});

describe("what breaks the protocol", () => {
  const one: Runs = [[0, 1]];
  const table = Buffer.from("0000000000000001", "hex");
  const zstd = (bytes: Buffer): Buffer =>
    frameOf(0, Buffer.concat([table, bytes]), { encoding: FrameEncoding.ZSTD, runs: 1 });
  const good = zstdCompressSync(Buffer.alloc(PAGE_BYTES, 1));
  const corrupt = pagesFrame(0, one);
  corrupt[100]! ^= 1;
  const missing = encodePageMessage({ kind: "missing", block: 0, runs: [], last: true });
  const served = encodePageMessage({ kind: "served", ramDigest: null });

  test.each<[string, "urgent" | "background", readonly Buffer[], number]>([
    ["a sequence that does not begin with 0", "urgent", [pagesFrame(1, one)], 4001],
    ["a sequence with a gap", "background", [pagesFrame(0, one), pagesFrame(2, one)], 4001],
    ["a pass", "background", [pagesFrame(0, one, { pass: 1 })], 4001],
    ["a compressed frame on the urgent lane", "urgent", [zstd(good)], 4001],
    ["data of another length", "background", [zstd(good.subarray(0, -1))], 4001],
    ["bytes behind the data", "background", [zstd(Buffer.concat([good, good]))], 4001],
    ["a page outside of its block", "background", [pagesFrame(0, [[9999, 2]])], 4001],
    ["a block that is not there", "background", [pagesFrame(0, one, { block: 2 })], 4001],
    ["more pages than anybody waits for", "urgent", [pagesFrame(0, [[1, -65]])], 4001],
    ["a page twice in a frame", "urgent", [pagesFrame(0, [...one, ...one])], 4001],
    [
      "a frame without pages",
      "urgent",
      [frameOf(0, Buffer.alloc(0), { kind: FrameKind.BARRIER })],
      4001,
    ],
    ["a damaged frame", "background", [corrupt], 4003],
    ["noise", "urgent", [Buffer.alloc(100)], 4003],
    ["a message of the dest", "urgent", [missing], 4001],
    ["SERVED in the background", "background", [served], 4001],
    ["SERVED while pages are missing", "urgent", [served], 4001],
  ])("ends the pair and nothing else: %s", async (_, lane, messages, code) => {
    await bench.missing(0, 0, 50).fetching();
    for (const message of messages) bench[lane].arrive(message);
    await settled();
    expect([bench.urgent.closeCode, bench.background.closeCode]).toEqual([code, code]);
    bench.lanes(2);
    await settled();
    bench.pages("urgent", [[40, 1]]);
    await settled();
    expect(bench.placer.placed).toContain("0:40=40");
    expect(bench.placer.missing.has(0, 1)).toBe(true);
  });

  test("is a page that comes before the source was told what is missing", async () => {
    bench.lanes(1);
    bench.pages("background", one);
    await settled();
    expect(bench.background.closeCode).toBe(CloseCode.PROTOCOL_VIOLATION);
  });

  test("is a compressed frame where both agents did not agree on it", async () => {
    bench = new FetchBench({ compression: false });
    await bench.missing(0, 0, 50).fetching();
    bench.background.arrive(zstd(good));
    await settled();
    expect(bench.background.closeCode).toBe(CloseCode.PROTOCOL_VIOLATION);
  });

  test("is more than the credit that waits for QEMU", async () => {
    await bench.missing(0, 0, 1000).fetching();
    bench.holdFlushes();
    const frames = Math.floor(limits.CREDIT_BYTES_MAX / pagesFrame(0, [[0, 64]]).length);
    for (let sent = 0; sent < frames; sent++) bench.pages("background", [[64, 64]]);
    await settled();
    expect(bench.background.closeCode).toBeNull();
    bench.pages("background", [[64, 64]]);
    expect(bench.background.closeCode).toBe(CloseCode.PROTOCOL_VIOLATION);
  });
});

describe("the end", () => {
  test("is overdue after half a minute in which QEMU has not said it, and may still come", async () => {
    const shut = new Deferred();
    bench.placer.shut = shut.promise;
    await bench.missing(0, 5, 1).fetching();
    bench.pages("background", [[5, 1]]);
    await settled();
    expect(bench.placer.isEnded).toBe(true);
    bench.clock.advance(29_999);
    expect(bench.endsOverdue).toBe(0);
    bench.clock.advance(1);
    expect(bench.endsOverdue).toBe(1);
    shut.resolve();
    await settled();
    bench.served(DIGEST);
    expect((await bench.fetch.whole).ramDigest).toBe(bench.placer.ownDigest);
  });

  test.each([
    ["equal", DIGEST, DIGEST, true],
    ["different", DIGEST, "d2".repeat(32), false],
    ["not known here", null, DIGEST, null],
    ["not known there", DIGEST, null, null],
  ])("comes with the last page, and digests that are %s", async (_, ours, theirs, equal) => {
    await bench.missing(0, 0, 1).fetching();
    bench.placer.ownDigest = ours;
    bench.pages("background", [[0, 1]]);
    await settled();
    expect(bench.placer.isEnded).toBe(true);
    bench.served(theirs);
    expect(await bench.fetch.whole).toEqual({ ramDigest: ours, equal });
  });

  test("comes without the source's digest where the source is gone", async () => {
    await bench.missing(0, 0, 1).fetching();
    bench.pages("background", [[0, 1]]);
    await settled();
    bench.clock.advance(5000);
    expect(await bench.fetch.whole).toMatchObject({ equal: null });
  });

  test("comes at once where nothing is missing", async () => {
    await bench.fetching();
    await settled();
    expect(bench.placer.isEnded).toBe(true);
  });

  test("waits for a page of an earlier pair that QEMU has not taken yet", async () => {
    await bench.missing(0, 0, 1).fetching();
    const release = bench.holdFlushes();
    bench.pages("background", [[0, 1]]);
    bench.lanes(2);
    await settled();
    bench.served(DIGEST);
    bench.served(DIGEST);
    await settled();
    expect(bench.placer.isEnded).toBe(false);
    release();
    expect(await bench.fetch.whole).toEqual({ ramDigest: DIGEST, equal: true });
  });

  test("is a failure when QEMU takes no more, and no lane is told that all is done", async () => {
    await bench.missing(0, 0, 2).fetching();
    bench.placer.gate = Promise.reject(new Error("QEMU is gone"));
    bench.pages("background", [[0, 1]]);
    await expect(bench.fetch.whole).rejects.toThrow("QEMU is gone");
    expect(bench.urgent.closeCode).toBe(CloseCode.SESSION_ENDED);
    bench.lanes(2);
    expect(bench.urgent.closeCode).toBe(CloseCode.SESSION_ENDED);
  });
});

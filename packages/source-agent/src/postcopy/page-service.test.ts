import { afterEach, describe, expect, test } from "vitest";
import { createLogger, PeerError } from "@vmferry/agent";
import { CloseCode, encodePageMessage, FrameEncoding, limits } from "@vmferry/protocol";
import { ServeBench, settled } from "./serve-bench.ts";
import type { PageServiceOptions } from "./page-service.ts";

const FRAME_OF_ONE = limits.FRAME_HEADER_BYTES + limits.RUN_BYTES + limits.PAGE_BYTES;

let bench: ServeBench;
afterEach(async () => {
  bench.service.stop();
  await bench.running;
});

function serving(stored: number, options: Partial<PageServiceOptions> = {}): ServeBench {
  bench = new ServeBench(stored, options);
  return bench;
}

const unreachable = new PeerError("no", { code: "peer-unreachable", url: "ws://dest" });

describe("lanes", () => {
  test("are dialled in pairs, with the same attempt and all about the hand-over", async () => {
    serving(10);
    await settled();
    const [one, other] = bench.lanes;
    expect(bench.lanes.map(({ hello }) => hello.lane).sort()).toEqual(["background", "urgent"]);
    expect({ ...one!.hello, lane: "" }).toEqual({ ...other!.hello, lane: "" });
    expect(one!.hello).toMatchObject({ migrationId: "m1", epoch: 3, incarnation: "s1" });
    expect(bench.service.isConnected).toBe(true);
  });

  test("of a later pair have a later attempt, also in a later life", async () => {
    serving(10);
    await bench.missing(10);
    const first = bench.urgent.hello.attempt;
    bench.background.lose();
    await bench.later(150);
    expect(bench.lanes).toHaveLength(4);
    expect(bench.urgent.hello.attempt).toBe(first + 1);
    expect(bench.lanes[0]!.closeCode).toBe(CloseCode.SESSION_ENDED);
    expect(first).toBeGreaterThan(bench.clock.date().getTime() - 10_000);
    expect(bench.service.counters.reconnects).toBe(1);
  });

  test.each([
    ["a link that was lost", null, "page lanes lost; dialling again"],
    ["what the dest needs no more", CloseCode.DONE, undefined],
  ])("are warned of for a link alone that was lost: %s", async (_, closeCode, warning) => {
    const warned: string[] = [];
    const write = (line: string): void => {
      warned.push((JSON.parse(line) as { msg: string }).msg);
    };
    const logger = createLogger({ role: "source", level: "warn", stream: { write } });
    serving(10, { logger });
    await settled();
    bench.urgent.lose(closeCode);
    await settled();
    expect(warned.at(0)).toBe(warning);
  });

  test("are dialled for ever, in times that double up to a limit", async () => {
    serving(10);
    let dials = 0;
    bench.onDial = () => {
      dials++;
      return Promise.reject(unreachable);
    };
    await settled();
    bench.urgent.lose();
    await settled();
    const atMs: number[] = [];
    for (let ms = 0; ms < 60_000; ms += 50) {
      const before = dials;
      bench.clock.advance(50);
      await settled();
      if (dials > before) atMs.push(ms);
    }
    const gaps = atMs.slice(1).map((at, index) => at - atMs[index]!);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(limits.REDIAL_MS_MAX + 50);
    expect(gaps.at(-1)).toBeGreaterThanOrEqual(limits.REDIAL_MS_MAX - 50);
    expect(atMs.length).toBeGreaterThan(35);
  });

  test("that the dest takes and closes at once are not dialled without a pause", async () => {
    serving(10);
    for (let round = 0; round < 8; round++) {
      await bench.later(1600);
      bench.urgent.lose();
    }
    const before = bench.lanes.length;
    await bench.later(1300);
    expect(bench.lanes.length).toBe(before);
    await bench.later(300);
    expect(bench.lanes.length).toBe(before + 2);
  });

  test("are closed when the other one of the pair cannot be had", async () => {
    serving(10);
    await settled();
    bench.urgent.lose();
    bench.onDial = (lane) =>
      lane === "urgent" ? Promise.resolve() : settled().then(() => Promise.reject(unreachable));
    await bench.later(500);
    const alone = bench.lanes.slice(2);
    expect(alone.length).toBeGreaterThan(1);
    expect(alone.map(({ hello }) => hello.lane)).not.toContain("background");
    expect(alone.every(({ closeCode }) => closeCode === CloseCode.SESSION_ENDED)).toBe(true);
    bench.onDial = () => Promise.resolve();
    await bench.later(2000);
    expect(bench.service.isConnected).toBe(true);
  });

  test("that nobody answers are given up after three seconds, and dialled again", async () => {
    serving(10);
    await settled();
    let dials = 0;
    bench.onDial = (_lane, signal) => {
      dials++;
      return new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          reject(signal.reason as Error);
        });
      });
    };
    bench.urgent.lose();
    await bench.later(3000);
    expect(dials).toBe(2);
    await bench.later(1000);
    expect(dials).toBe(4);
    bench.service.stop();
    await bench.running;
    expect(bench.clock.timerCount).toBe(0);
  });

  test("are closed by stop, which leaves no timer", async () => {
    serving(10);
    await bench.missing(10);
    bench.service.stop();
    await bench.running;
    expect(bench.lanes.every(({ closeCode }) => closeCode !== null)).toBe(true);
    expect(bench.clock.timerCount).toBe(0);
  });
});

describe("a page that is asked for", () => {
  test("goes out at once and raw, although the window of the background is full", async () => {
    serving(4000, { compression: true });
    await bench.missing(4000);
    await bench.request(3000, 2);
    expect(bench.urgent.frames).toMatchObject([
      {
        header: { encoding: FrameEncoding.RAW, sequence: 0, pass: 0 },
        bytes: FRAME_OF_ONE + limits.PAGE_BYTES,
        pages: ["0:3000", "0:3001"],
      },
    ]);
    expect(bench.service.counters.requestedPages).toBe(2);
  });

  test("does not go out again over the same pair, and does over a new one", async () => {
    serving(4000);
    await bench.missing(4000);
    await bench.request(3000);
    await bench.request(2999, 2);
    await bench.request(3000);
    // Of a page that went out in the background, too.
    await bench.request(0);
    expect(bench.urgent.frames.flatMap(({ pages }) => pages)).toEqual(["0:3000", "0:2999z"]);
    bench.urgent.lose();
    await bench.later(150);
    await bench.missing(4000);
    await bench.request(3000);
    expect(bench.urgent.frames.flatMap(({ pages }) => pages)).toEqual(["0:3000"]);
    expect(bench.service.counters.resentPages).toBeGreaterThan(0);
  });

  test("brings its neighbours along once the link was measured, within the budget", async () => {
    serving(4000);
    await bench.missing(4000);
    for (let round = 0; round < 12; round++) {
      bench.clock.advance(10);
      await bench.placeAll("background");
    }
    await bench.request(3000);
    const [fault, neighbours] = bench.urgent.frames;
    expect(fault!.pages).toEqual(["0:3000"]);
    expect(neighbours!.pages.slice(0, 3)).toEqual(["0:3001", "0:3002", "0:3003"]);
    const { prefetchedPages } = bench.service.counters;
    expect(prefetchedPages).toBe(neighbours!.pages.length);
    // The next ones wait until the dest has told of these: 2 ms of some 20 MB/s are ten pages.
    await bench.request(3500);
    await bench.request(3600);
    expect(bench.service.counters.prefetchedPages).toBeLessThanOrEqual(16);
    await bench.placeAll("urgent");
    await bench.request(3700);
    expect(bench.service.counters.prefetchedPages).toBeGreaterThan(prefetchedPages);
  });
});

describe("a store that cannot be read", () => {
  test("is told of with the page, and everything else is served", async () => {
    serving(40);
    bench.isBroken = (page) => page === 7;
    await bench.missing(40);
    for (let round = 0; round < 20; round++) await bench.placeAll("background");
    expect(bench.service.remainingPages).toBe(1);
    expect(bench.unreadable).toMatchObject([{ block: 0, page: 7, error: { message: "EIO" } }]);
    expect(bench.urgent.messages).toEqual([]);
    bench.isBroken = () => false;
    await bench.later(5000);
    await bench.placeAll("background");
    expect(bench.urgent.messages).toMatchObject([{ kind: "served" }]);
  });

  test("does not keep those pages of a request that can be read", async () => {
    serving(4000);
    bench.isBroken = (page) => page === 3001;
    await bench.missing(4000);
    await bench.request(3000, 3);
    expect(bench.urgent.frames.flatMap(({ pages }) => pages).sort()).toEqual(["0:3000", "0:3002"]);
    bench.isBroken = () => false;
    await bench.request(3001);
    expect(bench.urgent.frames.at(-1)!.pages).toEqual(["0:3001"]);
  });
});

describe("over a new pair", () => {
  test("goes out what the dest lacks then, and nothing else", async () => {
    serving(500);
    await bench.missing(500);
    bench.background.lose();
    await bench.later(150);
    await bench.missing(3);
    expect(bench.background.frames.flatMap(({ pages }) => pages)).toEqual(["0:0", "0:1", "0:2"]);
    await bench.placeAll("background");
    expect(bench.urgent.messages).toMatchObject([{ kind: "served" }]);
  });

  test("SERVED is said again, where nothing is missing at once", async () => {
    serving(10, { ramDigest: () => null });
    await bench.missing(0);
    expect(bench.urgent.messages).toEqual([{ kind: "served", ramDigest: null }]);
    bench.urgent.lose();
    await bench.later(150);
    await bench.missing(0);
    expect(bench.urgent.messages).toEqual([{ kind: "served", ramDigest: null }]);
    expect(bench.lanes).toHaveLength(4);
  });
});

describe("what breaks the protocol ends the pair, and the next one is dialled", () => {
  const run = (first: number, count: number): Buffer =>
    encodePageMessage({ kind: "missing", block: 0, runs: [{ first, count }], last: false });
  const request = encodePageMessage({ kind: "request", block: 0, firstPage: 9, pages: 2 });
  const outside = encodePageMessage({ kind: "request", block: 1, firstPage: 9, pages: 2 });
  const placed = (lane: "urgent" | "background", bytes: number): Buffer =>
    encodePageMessage({ kind: "placed", lane, bytes });
  const served = encodePageMessage({ kind: "served", ramDigest: null });
  const nothing = encodePageMessage({ kind: "missing", block: 0, runs: [], last: true });
  const noBlock = encodePageMessage({ kind: "request", block: 7, firstPage: 0, pages: 1 });

  test.each<[string, readonly Buffer[]]>([
    ["a missing page that is not stored", [run(5, 6)]],
    ["missing pages outside of memory", [run(3999, 2)]],
    ["a page that is missing twice", [run(0, 5), run(4, 1)]],
    ["MISSING behind its last", [nothing, run(0, 1)]],
    ["a request before all of MISSING", [run(0, 5), request]],
    ["a request of a page that is not stored", [nothing, request]],
    ["a request outside of memory", [nothing, outside]],
    ["a request of a block that is not there", [nothing, noBlock]],
    ["more placed than was sent, urgent", [nothing, placed("urgent", 1)]],
    ["more placed than was sent, in the background", [nothing, placed("background", 1)]],
    ["SERVED", [nothing, served]],
    ["noise", [Buffer.alloc(21)]],
  ])("%s", async (_, messages) => {
    serving(10);
    await settled();
    const { urgent, background } = bench;
    for (const message of messages) {
      expect(urgent.closeCode).toBeNull();
      urgent.hear(message);
    }
    const code = messages[0]!.length === 21 ? 4003 : 4001;
    expect([urgent.closeCode, background.closeCode]).toEqual([code, code]);
    await bench.later(300);
    await bench.missing(10);
    expect(bench.background.frames.flatMap(({ pages }) => pages)).toHaveLength(10);
  });

  test("a message on the background lane", async () => {
    serving(10);
    await settled();
    bench.background.hear(nothing);
    expect(bench.urgent.closeCode).toBe(CloseCode.PROTOCOL_VIOLATION);
  });
});

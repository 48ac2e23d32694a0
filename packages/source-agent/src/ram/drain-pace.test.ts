import { beforeEach, describe, expect, test } from "vitest";
import { Deferred } from "@vmferry/core";
import { ManualClock } from "@vmferry/agent";
import type { DrainStage } from "./drain.ts";
import { DrainPace } from "./drain-pace.ts";

let clock: ManualClock;
let stage: DrainStage;
let pass: number;
let store: { hasRoom: boolean; written: () => Promise<void> };
let written: Deferred;
let fills: number;
let rested: number;
let isMoreCold: boolean;
let isCompressing: boolean;
let link: { ready: boolean };
let pace: DrainPace;

beforeEach(() => {
  clock = new ManualClock();
  stage = "shared";
  pass = 1;
  written = new Deferred();
  store = { hasRoom: true, written: () => written.promise };
  fills = 0;
  rested = 0;
  isMoreCold = true;
  isCompressing = false;
  link = { ready: false };
  pace = new DrainPace({
    sender: {
      get drainStage() {
        return stage;
      },
      get counters() {
        return { ...{ sentPages: 0, zeroPages: 0, unchangedPages: 0 }, ...came(), pass };
      },
      beginCold: () => {
        stage = "cold";
      },
      fillCold: () => {
        fills++;
        if (isMoreCold) return true;
        stage = "telling";
        return false;
      },
      endCold: () => {
        stage = "telling";
      },
    },
    transport: link,
    frames: {
      compressPages: (isAllowed) => {
        isCompressing = isAllowed;
      },
    },
    store,
    clock,
    attempt: (step) => {
      step();
    },
    onRested: () => {
      rested++;
    },
  });
});

function came(): { cameAgainPages: number; cameHeldPages: number } {
  return { cameAgainPages: 0, cameHeldPages: 0 };
}

function thirdPass(): void {
  stage = "counting";
  pass = 3;
  pace.secondPassOver();
}

describe("the pace of a drain from the first pass on", () => {
  test("leaves the link alone for a second", () => {
    pace.chunkCame();
    expect(pace.isShared).toBe(false);
    clock.advance(999);
    pace.chunkCame();
    expect(pace.isShared).toBe(false);
    clock.advance(1);
    pace.chunkCame();
    expect(pace.isShared).toBe(true);
  });

  test("lets the link have pages while the store has no room", () => {
    store.hasRoom = false;
    pace.chunkCame();
    expect(pace.isShared).toBe(true);
    store.hasRoom = true;
    pace.chunkCame();
    expect(pace.isShared).toBe(false);
  });

  test("begins with cold pages when the third pass was read, and sends them when they are written", async () => {
    stage = "counting";
    pass = 2;
    pace.secondPassOver();
    expect(pace.mayRead()).toBe(true);
    expect(stage).toBe("counting");
    pass = 3;
    pace.mayRead();
    expect(stage).toBe("cold");
    pace.fill();
    expect(fills).toBe(0);
    written.resolve();
    await written.promise;
    pace.fill();
    expect(fills).toBeGreaterThan(0);
  });

  test("does without, of a guest whose third pass brings nothing", () => {
    stage = "counting";
    pass = 2;
    pace.secondPassOver();
    clock.advance(999);
    expect(stage).toBe("counting");
    clock.advance(1);
    expect(stage).toBe("telling");
  });

  test("does without where the guest shall go now, and reads on", () => {
    thirdPass();
    pace.mayRead();
    expect([stage, pace.mayRead()]).toEqual(["cold", false]);
    pace.goNow();
    expect([stage, rested, pace.mayRead()]).toEqual(["telling", 1, true]);
  });

  test("still waits for the end of the first pass then, and the link has none of it", () => {
    stage = "shared";
    pace.goNow();
    clock.advance(5000);
    pace.chunkCame();
    expect([stage, pace.isShared]).toEqual(["shared", false]);
    stage = "counting";
    pace.mayRead();
    expect(stage).toBe("telling");
  });

  test("does without also where the first pass was still being read when that was known", () => {
    stage = "shared";
    pass = 1;
    pace.secondPassOver();
    clock.advance(1000);
    expect(stage).toBe("shared");
    stage = "counting";
    pass = 2;
    expect([pace.mayRead(), stage]).toEqual([true, "telling"]);
  });

  test("compresses cold pages, and nothing else", async () => {
    thirdPass();
    expect(isCompressing).toBe(false);
    pace.mayRead();
    written.resolve();
    await written.promise;
    expect(isCompressing).toBe(true);
    isMoreCold = false;
    pace.fill();
    expect(isCompressing).toBe(false);
  });

  test("rests longer and longer after each pass while cold pages go out", () => {
    thirdPass();
    for (const [index, restMs] of [50, 50, 110, 500, 1000, 1000].entries()) {
      pass++;
      expect(pace.mayRead()).toBe(false);
      clock.advance(restMs - 1);
      expect(pace.mayRead()).toBe(false);
      clock.advance(1);
      expect([rested, pace.mayRead()]).toEqual([index + 1, true]);
      // From then on cold pages have gone out for 1.1, 5, 11 and 50 seconds.
      clock.advance([0, 1000, 3790, 5500, 38_000, 0][index]!);
    }
  });

  test("rests no more as soon as there is nothing cold left", async () => {
    thirdPass();
    pace.mayRead();
    written.resolve();
    await written.promise;
    expect(rested).toBe(0);
    isMoreCold = false;
    pace.fill();
    expect([rested, pace.mayRead()]).toEqual([1, true]);
    clock.advance(100);
    expect(rested).toBe(1);
  });

  test("rests no more as soon as the guest stands still", () => {
    thirdPass();
    pace.mayRead();
    pace.hurry();
    expect(rested).toBe(1);
    pass++;
    expect(pace.mayRead()).toBe(true);
  });

  test("does not rest before and after that", () => {
    stage = "counting";
    expect(pace.mayRead()).toBe(true);
    stage = "telling";
    for (pass = 3; pass < 10; pass++) expect(pace.mayRead()).toBe(true);
  });

  test("wakes nobody once it is stopped", () => {
    thirdPass();
    pace.mayRead();
    pace.stop();
    clock.advance(2000);
    expect([rested, stage]).toEqual([0, "cold"]);
  });
});

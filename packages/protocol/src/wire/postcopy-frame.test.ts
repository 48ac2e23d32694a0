import { describe, expect, test } from "vitest";
import { ruleOf } from "./broken-rule.ts";
import { deviceStateBytesOf, openFrame, RunTable } from "./bulk-frame.ts";
import { naiveFrame, naiveMissing, type NaiveRun } from "./naive-frame.ts";

function refusal(frame: Buffer): string {
  return ruleOf(() => openFrame(frame));
}

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

describe("a frame of post-copy", () => {
  const MISSED = Array.from({ length: 257 }, (_, index) => run(2 * index, 1));

  test("names missing pages of block 255 at most, in 1 to 256 runs", () => {
    expect(refusal(naiveMissing(MISSED.slice(1), { block: 255 }))).toBe("accepted");
    expect(refusal(naiveMissing([run(0, 1)], { block: 256 }))).toBe("frame block index");
    expect(refusal(naiveMissing(MISSED))).toBe("frame run count");
    expect(refusal(naiveMissing([]))).toBe("frame run count");
  });

  test("has its run table and nothing else", () => {
    for (const bytes of [0, 8, 15, 17, 16 + 4096]) {
      const frame = naiveFrame({ kind: 7, runs: 2, payload: Buffer.alloc(bytes) });
      expect(refusal(frame), `${bytes}`).toBe("frame run table length");
    }
  });

  test.each([
    ["an empty run", [run(3, 0)], "empty run"],
    ["a run outside the block", [run(0, 1), run(999, 2)], "run outside its block"],
    ["a page twice", [run(5, 3), run(0, 6)], "runs overlap"],
    ["a zero run", [run(0, 1), zeroRun(5, 3)], "run of missing pages with a flag"],
    ["the longest zero run", [zeroRun(0, 2 ** 31 - 1)], "run outside its block"],
  ])("of missing pages is refused for %s", (_, runs, rule) => {
    expect(runsRefusal(naiveMissing(runs), 1000)).toBe(rule);
    expect(runsRefusal(naiveMissing([run(500, 500), run(0, 500)]), 1000)).toBe("accepted");
  });

  test("announces 1 byte to 64 MiB of device state, in four bytes", () => {
    const announced = (bytes: number): string => {
      const payload = Buffer.alloc(4);
      payload.writeUInt32BE(bytes);
      const frame = naiveFrame({ kind: 8, payload });
      openFrame(frame);
      return ruleOf(() => {
        expect(deviceStateBytesOf(frame)).toBe(bytes);
      });
    };
    for (const bytes of [1, 123_456, 67_108_864]) expect(announced(bytes)).toBe("accepted");
    for (const bytes of [0, 67_108_865, 2 ** 32 - 1]) {
      expect(announced(bytes)).toBe("length of device state");
    }
    for (const bytes of [0, 3, 5]) {
      const frame = naiveFrame({ kind: 8, payload: Buffer.alloc(bytes) });
      expect(refusal(frame)).toBe("frame payload length of its kind");
    }
  });
});

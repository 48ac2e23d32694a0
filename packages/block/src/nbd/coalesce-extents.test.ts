import { InvariantError } from "@vmferry/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Extent } from "../block-device.ts";
import { coalesceExtents } from "./coalesce-extents.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));

function data(offset: number, length: number): Extent {
  return { offset, length, kind: "data" };
}

function zero(offset: number, length: number): Extent {
  return { offset, length, kind: "zero" };
}

test("neighbours of one kind become one extent", () => {
  const extents = [data(10, 5), data(15, 5), zero(20, 1), zero(21, 4), data(25, 5)];
  expect(coalesceExtents(extents, { offset: 10, length: 20 })).toEqual([
    data(10, 10),
    zero(20, 5),
    data(25, 5),
  ]);
});

test("an extent never passes the end of the range (nbdkit CVE-2025-47711)", () => {
  expect(coalesceExtents([data(0, 512), zero(512, 2 ** 40)], { offset: 0, length: 513 })).toEqual([
    data(0, 512),
    zero(512, 1),
  ]);
  expect(coalesceExtents([zero(0, 512), data(512, 1)], { offset: 0, length: 512 })).toEqual([
    zero(0, 512),
  ]);
});

test("the longest range keeps its length in 32 bits (nbdkit CVE-2025-47712)", () => {
  const offset = 2 ** 45 + 1;
  const length = 2 ** 32 - 1;
  const halves = [
    zero(offset, 2 ** 31),
    zero(offset + 2 ** 31, 2 ** 31),
    data(offset + 2 ** 32, 9),
  ];
  expect(coalesceExtents(halves, { offset, length })).toEqual([zero(offset, length)]);
});

test("what a device leaves out at the end is left out", () => {
  expect(coalesceExtents([data(0, 100)], { offset: 0, length: 4096 })).toEqual([data(0, 100)]);
});

describe("a device that breaks its contract is our own bug, and no reply:", () => {
  test.each([
    ["nothing", []],
    ["a gap", [data(0, 10), data(11, 10)]],
    ["an overlap", [data(0, 10), zero(9, 10)]],
    ["a beginning before the range", [data(-1, 10)]],
    ["a beginning behind the range's", [data(1, 10)]],
    ["an empty extent", [data(0, 0), data(0, 10)]],
    ["a length that is no number", [data(0, NaN)]],
  ])("%s", (_, extents) => {
    expect(() => coalesceExtents(extents, { offset: 0, length: 100 })).toThrow(InvariantError);
  });
});

test(`each byte keeps its kind, and no two neighbours share one (seed ${seed})`, () => {
  const anyExtents = fc.array(
    fc.record({
      length: fc.integer({ min: 1, max: 9 }),
      kind: fc.constantFrom("data" as const, "zero" as const),
    }),
    { minLength: 1, maxLength: 12 },
  );
  fc.assert(
    fc.property(
      anyExtents,
      fc.nat(50),
      fc.integer({ min: 1, max: 60 }),
      (pieces, offset, length) => {
        let at = offset;
        const extents = pieces.map((piece): Extent => {
          at += piece.length;
          return { ...piece, offset: at - piece.length };
        });
        const perByte = (list: readonly Extent[]): string[] =>
          list.flatMap((extent) => Array<string>(extent.length).fill(extent.kind)).slice(0, length);
        const coalesced = coalesceExtents(extents, { offset, length });
        expect(perByte(coalesced)).toEqual(perByte(extents));
        expect(coalesced.at(-1)!.offset + coalesced.at(-1)!.length).toBe(
          Math.min(at, offset + length),
        );
        for (const [index, extent] of coalesced.entries()) {
          expect(extent.kind).not.toBe(coalesced[index + 1]?.kind);
        }
      },
    ),
    { seed, numRuns: 1000 },
  );
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Bitmap } from "./bitmap.ts";

/* SEED= replays the random runs. */
const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));

function setBits(bitmap: Bitmap): number[] {
  return Array.from({ length: bitmap.length }, (_, index) => index).filter((i) => bitmap.has(i));
}

describe("a new bitmap", () => {
  test.each([0, 1, 7, 8, 9, 64, 1000])("of %i bits has none set", (length) => {
    const bitmap = new Bitmap(length);
    expect(bitmap.length).toBe(length);
    expect(setBits(bitmap)).toEqual([]);
  });
});

test("every bit is its own, over the borders of bytes and in the last one", () => {
  for (const length of [1, 8, 9, 17]) {
    for (let index = 0; index < length; index++) {
      const bitmap = new Bitmap(length);
      expect(bitmap.testAndSet(index)).toBe(false);
      expect(setBits(bitmap)).toEqual([index]);
      expect(bitmap.testAndSet(index)).toBe(true);
      bitmap.clear(index);
      expect(setBits(bitmap)).toEqual([]);
    }
  }
});

test("the last bits for the pages of a guest of 512 GiB are told apart", () => {
  const bitmap = new Bitmap(2 ** 27);
  bitmap.testAndSet(2 ** 27 - 1);
  expect(bitmap.has(2 ** 27 - 1)).toBe(true);
  expect(bitmap.has(2 ** 27 - 2)).toBe(false);
  expect(bitmap.has(0)).toBe(false);
});

test(`any sequence of operations does what it does to a set (seed ${seed})`, () => {
  const anyOperation = fc.record({
    what: fc.constantFrom("set", "set", "set", "clear", "has", "clear all"),
    at: fc.nat(2 ** 24),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 70 }),
      fc.array(anyOperation, { maxLength: 200 }),
      (length, operations) => {
        const bitmap = new Bitmap(length);
        const twin = new Set<number>();
        for (const { what, at } of operations) {
          const index = at % length;
          if (what === "set") expect(bitmap.testAndSet(index)).toBe(twin.has(index));
          if (what === "set") twin.add(index);
          if (what === "has") expect(bitmap.has(index)).toBe(twin.has(index));
          if (what === "clear") bitmap.clear(index);
          if (what === "clear") twin.delete(index);
          if (what === "clear all" && at % 8 === 0) {
            bitmap.clearAll();
            twin.clear();
          }
        }
        expect(setBits(bitmap)).toEqual([...twin].sort((a, b) => a - b));
      },
    ),
    { seed, numRuns: 300 },
  );
});

test("the next set bit is found over empty bytes and up to the last one", () => {
  const bitmap = new Bitmap(1003);
  expect(bitmap.nextSet(0)).toBeNull();
  for (const index of [3, 4, 64, 1002]) bitmap.testAndSet(index);
  const found: (number | null)[] = [];
  for (let at = bitmap.nextSet(0); at !== null; at = bitmap.nextSet(at + 1)) found.push(at);
  expect(found).toEqual([3, 4, 64, 1002]);
  expect(bitmap.nextSet(1003)).toBeNull();
});

test("takes over what is set in another, and counts", () => {
  const [one, other] = [new Bitmap(19), new Bitmap(19)];
  for (const index of [0, 7, 18]) one.testAndSet(index);
  for (const index of [7, 8, 17]) other.testAndSet(index);
  one.setAllOf(other);
  expect(setBits(one)).toEqual([0, 7, 8, 17, 18]);
  expect(one.count()).toBe(5);
  expect(other.count()).toBe(3);
});

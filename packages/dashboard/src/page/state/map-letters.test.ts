import { expect, it } from "vitest";
import { MAP_LETTERS } from "@vmferry/protocol";
import { LETTER_KINDS, sharesOf } from "./map-letters.ts";

it("every letter of the API has a name and a colour", () => {
  expect(LETTER_KINDS.map(({ letter }) => letter).toSorted()).toEqual(MAP_LETTERS.toSorted());
  expect(new Set(LETTER_KINDS.map(({ color }) => color)).size).toBe(MAP_LETTERS.length);
});

it("the shares of a map are those of the letters that occur", () => {
  const shares = sharesOf("sswk").map(({ kind, share }) => [kind.label, share]);
  expect(shares).toEqual([
    ["not sent", 0.25],
    ["sent", 0.5],
    ["held", 0.25],
  ]);
  expect(sharesOf("")).toEqual([]);
});

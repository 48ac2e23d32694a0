import { expect, test } from "vitest";
import { stateDigest } from "./state-digest.ts";

const [one, other, third] = ["a1".repeat(32), "b2".repeat(32), "c3".repeat(32)];

test("one text says memory and every disk, in their order", () => {
  expect(stateDigest({ ramDigest: one, diskDigests: [] })).toBe(one);
  expect(stateDigest({ ramDigest: one, diskDigests: [other, third] })).toBe(
    `${one}:${other}:${third}`,
  );
});

test("texts are equal only when every digest is, and there are as many", () => {
  const texts = [
    { ramDigest: one, diskDigests: [] },
    { ramDigest: one, diskDigests: [other] },
    { ramDigest: other, diskDigests: [one] },
    { ramDigest: one, diskDigests: [third] },
    { ramDigest: one, diskDigests: [other, third] },
    { ramDigest: one, diskDigests: [third, other] },
    { ramDigest: one, diskDigests: [other, other] },
    { ramDigest: third, diskDigests: [other, third] },
  ].map(stateDigest);
  expect(new Set(texts).size).toBe(texts.length);
});

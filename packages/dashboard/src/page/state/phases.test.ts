import { expect, it } from "vitest";
import { elapsedMs, spansOf } from "./phases.ts";
import { sampleMigration } from "../../sample-migration.ts";

const BEGAN_MS = Date.parse("2030-01-01T10:00:00.000Z");

it("a phase lasts until the next one, and the present one until now", () => {
  const migration = sampleMigration([
    ["preparing", 0],
    ["pre-copy", 20],
  ]);
  const spans = spansOf(migration, BEGAN_MS + 1020);
  expect(spans.map(({ phase, ms, isLast }) => [phase, ms, isLast])).toEqual([
    ["preparing", 20, false],
    ["pre-copy", 1000, true],
  ]);
  expect(elapsedMs(migration, BEGAN_MS + 1020)).toBe(1020);
});

it("what has ended takes no more time", () => {
  const migration = sampleMigration([
    ["preparing", 0],
    ["cancelled", 300],
  ]);
  expect(spansOf(migration, BEGAN_MS + 9000).map(({ ms }) => ms)).toEqual([300, 0]);
  expect(elapsedMs(migration, BEGAN_MS + 9000)).toBe(300);
});

it("no phase takes less than no time, though the clock of the reader is behind", () => {
  const migration = sampleMigration([["preparing", 0]]);
  expect(spansOf(migration, BEGAN_MS - 5000)[0]?.ms).toBe(0);
  expect(elapsedMs(migration, BEGAN_MS - 5000)).toBe(0);
});

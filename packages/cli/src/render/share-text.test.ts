import { expect, test } from "vitest";
import type { Migration } from "../api/migration.ts";
import { sampleDisk, sampleMigration } from "../fake-agent.ts";
import { shareText } from "./share-text.ts";

const ON_SHARE = "All of the memory that web1 still lacks is on the share";

const onShare = (changes: Partial<Migration> = {}): string | null =>
  shareText(sampleMigration({ phase: "post-copy", fallback: "complete", ...changes }));

test("with all of memory on the share the source's host may be lost", () => {
  expect(onShare()).toBe(`${ON_SHARE}: the source's host may be lost now.`);
  const disks = [sampleDisk({ remainingBytes: 0 })];
  expect(onShare({ disks })).toBe(`${ON_SHARE}: the source's host may be lost now.`);
});

test("a disk that follows still needs the source's host", () => {
  const disks = [sampleDisk({ remainingBytes: 0 }), sampleDisk({ remainingBytes: 4096 })];
  expect(onShare({ disks })).toBe(`${ON_SHARE}; its disks still need the source's host.`);
});

test("a disk that is not copied needs nobody", () => {
  const disks = [sampleDisk({ mode: "shared", remainingBytes: 4096 })];
  expect(onShare({ disks })).toContain("may be lost");
});

test("nothing is promised where the agent does not know all of the disks", () => {
  expect(onShare({ disks: [sampleDisk({ remainingBytes: null })] })).toBe(`${ON_SHARE}.`);
  const ram = { ...sampleMigration().ram, totalBytes: null };
  expect(onShare({ ram })).toBe(`${ON_SHARE}.`);
});

test.each([
  { phase: "in-doubt" },
  { phase: "handing-over" },
  { phase: "completed" },
  { fallback: "growing" },
  { fallback: "failed" },
  { fallback: null },
])("nothing is said of %o", (changes) => {
  expect(onShare(changes)).toBeNull();
});

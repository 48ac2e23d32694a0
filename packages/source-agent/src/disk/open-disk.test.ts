import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SourceDisks } from "./source-disks.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-open-"));
  for (const name of ["a.raw", "b.raw"])
    await writeFile(join(directory, name), Buffer.alloc(65_536));
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

function open(lazy: boolean): Promise<SourceDisks> {
  const disks = [
    { id: "disk0", image: "a.raw", format: "raw", mode: "copy" },
    { id: "disk1", image: "b.raw", format: "raw", mode: "scratch" },
  ] as const;
  const where = {
    imageDir: directory,
    spoolDir: directory,
    guestDir: directory,
    migrationId: "m1",
    attachedBytes: null,
  };
  return SourceDisks.open(disks, { ...where, lazy });
}

test("a raw disk that is copied may follow its guest, and nothing else does", async () => {
  const disks = await open(true);
  expect(disks.offered.map(({ lazy }) => lazy)).toEqual([true, undefined]);
  expect(disks.anyToCopy).toBe(false);
  const path = join(directory, "a.raw");
  expect(disks.lazy).toEqual([
    { id: "disk0", index: 0, path, sizeBytes: 65_536, unitBytes: 65_536 },
  ]);
  // The guest leaves it behind all the same.
  expect(disks.copied).toEqual([{ path, sizeBytes: 65_536 }]);
  expect(disks.progress().map(({ remainingBytes }) => remainingBytes)).toEqual([65_536, 0]);
  await disks.close();
});

test("without that every disk is whole at the hand-over", async () => {
  const disks = await open(false);
  expect(disks.offered.map(({ lazy }) => lazy)).toEqual([undefined, undefined]);
  expect([disks.anyToCopy, disks.lazy]).toEqual([true, []]);
  await disks.close();
});

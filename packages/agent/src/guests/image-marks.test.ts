import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PartialMark } from "@vmferry/block";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  acceptImages,
  discardImages,
  markImagesLeft,
  refuseUnfitImages,
  unmarkImagesLeft,
} from "./image-marks.ts";

const MIGRATION = { migrationId: "70b2bbb6-030f-480c-9b0c-eb34712b67a1", epoch: 2 };
const DISKS = [{ id: "disk0", image: "disk.raw", format: "raw", mode: "copy" }] as const;
let directory: string;
let image: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-marks-"));
  image = join(directory, "disk.raw");
  await writeFile(image, Buffer.alloc(4096));
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function mark(state: "filling" | "whole" | "lazy"): Promise<void> {
  const created = await PartialMark.create(image, {
    imageBytes: 4096,
    blockBytes: 65_536,
    ...MIGRATION,
  });
  if (state === "whole") await created.complete();
  if (state === "lazy") await created.update({ state });
}

const isMarked = (): boolean => existsSync(`${image}.vmferry`);

test("an image without a mark is an ordinary disk", async () => {
  await expect(refuseUnfitImages(DISKS, directory)).resolves.toBeUndefined();
});

test("no guest starts from an image that its guest has left, until it has come back", async () => {
  await markImagesLeft([{ path: image, sizeBytes: 4096 }], MIGRATION);
  await expect(refuseUnfitImages(DISKS, directory)).rejects.toMatchObject({
    code: "image-handed-off",
  });
  await unmarkImagesLeft([{ path: image }]);
  await expect(refuseUnfitImages(DISKS, directory)).resolves.toBeUndefined();
});

test("a guest that comes back takes no mark away that says that its image is half of something", async () => {
  await mark("filling");
  await unmarkImagesLeft([{ path: image }]);
  await acceptImages(DISKS, directory);
  await expect(refuseUnfitImages(DISKS, directory)).rejects.toMatchObject({
    code: "image-incomplete",
  });
});

test("an image of which a part is at the source stays marked when its guest is owned", async () => {
  await mark("lazy");
  await acceptImages(DISKS, directory);
  await expect(refuseUnfitImages(DISKS, directory)).rejects.toMatchObject({
    code: "image-incomplete",
    message: expect.stringContaining("disk.raw.vmferry-present") as string,
  });
});

test("what says which part of an image is there goes with it, and when it is whole", async () => {
  for (const settle of [discardImages, acceptImages]) {
    await writeFile(image, Buffer.alloc(4096));
    await mark("whole");
    await writeFile(`${image}.vmferry-present`, "");
    await settle(DISKS, directory);
    expect(existsSync(`${image}.vmferry-present`)).toBe(false);
  }
});

test("a guest that is owned here has ordinary images, be they whole or left before", async () => {
  await mark("whole");
  await acceptImages(DISKS, directory);
  expect(isMarked()).toBe(false);
  await markImagesLeft([{ path: image, sizeBytes: 4096 }], MIGRATION);
  await acceptImages(DISKS, directory);
  expect(isMarked()).toBe(false);
});

test("of a guest that never ran here the images go, and those that it left stay", async () => {
  await mark("whole");
  await discardImages(DISKS, directory);
  expect([existsSync(image), isMarked()]).toEqual([false, false]);
  await writeFile(image, "");
  await markImagesLeft([{ path: image, sizeBytes: 4096 }], MIGRATION);
  await discardImages(DISKS, directory);
  expect([existsSync(image), isMarked()]).toEqual([true, true]);
});

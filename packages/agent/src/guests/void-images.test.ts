import { access, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ImageFile, lockImage, PartialMark, type MarkState } from "@vmferry/block";
import { createLogger } from "../log.ts";
import { removeVoidImages } from "./void-images.ts";

const logger = createLogger({ role: "dest", level: "silent" });
const idle = { active: new Set<string>(), prepared: new Set<string>() };
let imageDir: string;

beforeEach(async () => {
  imageDir = await mkdtemp(join(tmpdir(), "vmferry-void-"));
});

afterEach(async () => {
  await rm(imageDir, { recursive: true });
});

async function marked(name: string, migrationId: string, state: MarkState): Promise<string> {
  const path = join(imageDir, name);
  await writeFile(path, Buffer.alloc(4096));
  const mark = await PartialMark.replace(path, {
    ...{ imageBytes: 4096, blockBytes: 65_536, migrationId, epoch: 2 },
  });
  if (state === "whole") await mark.complete();
  if (state === "left") await mark.update({ state });
  return path;
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

test("what a dead agent was filling is removed, with its mark, in every directory", async () => {
  await mkdir(join(imageDir, "pool"));
  await marked("a.raw", "m1", "filling");
  await marked("pool/b.raw", "m1", "filling");
  await removeVoidImages({ imageDir, ...idle, logger });
  expect(await readdir(imageDir, { recursive: true })).toEqual(["pool"]);
});

test.each(["whole", "left"] as const)("an image that is %s stays", async (state) => {
  const path = await marked("a.raw", "m1", state);
  await removeVoidImages({ imageDir, ...idle, logger });
  expect([await isThere(path), await isThere(`${path}.vmferry`)]).toEqual([true, true]);
});

test("an image of a migration that is not over stays, and one without a mark", async () => {
  const path = await marked("a.raw", "m1", "filling");
  await writeFile(join(imageDir, "b.raw"), "x");
  await removeVoidImages({ imageDir, ...idle, active: new Set(["m1"]), logger });
  expect((await readdir(imageDir)).sort()).toEqual(["a.raw", "a.raw.vmferry", "b.raw"]);
  expect(await isThere(path)).toBe(true);
});

test("an image that somebody fills right now stays", async () => {
  const path = await marked("a.raw", "m1", "filling");
  const image = await ImageFile.open(path);
  const lock = await lockImage(image);
  await removeVoidImages({ imageDir, ...idle, logger });
  expect(await isThere(path)).toBe(true);
  await lock.unlock();
  await image.close();
});

test("a mark that is damaged keeps its image", async () => {
  const path = await marked("a.raw", "m1", "filling");
  await writeFile(`${path}.vmferry`, "nonsense");
  await removeVoidImages({ imageDir, ...idle, logger });
  expect(await isThere(path)).toBe(true);
});

test("an image over which a QEMU waits stays, and only its mark goes", async () => {
  await mkdir(join(imageDir, "pool"));
  await marked("a.raw", "m1", "filling");
  await marked("pool/a.raw", "m1", "filling");
  await removeVoidImages({ imageDir, ...idle, prepared: new Set(["pool/a.raw"]), logger });
  expect((await readdir(imageDir, { recursive: true })).sort()).toEqual(["pool", "pool/a.raw"]);
});

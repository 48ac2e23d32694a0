import { statSync } from "node:fs";
import { mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ImageFile } from "./image-file.ts";
import { lockImage } from "./image-lock.ts";
import { PartialMark } from "./partial-mark.ts";
import { takeImage } from "./take-image.ts";

const SIZE = 8 * 1024 * 1024;
let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-take-"));
  path = join(directory, "a.raw");
  await writeFile(path, "");
  await truncate(path, SIZE);
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

function take(checkUser: (path: string) => void = () => undefined): ReturnType<typeof takeImage> {
  const mark = { blockBytes: 65_536, migrationId: "m1", epoch: 3 };
  return takeImage({ directory, name: "a.raw", sizeBytes: SIZE, needBytes: 0, mark, checkUser });
}

async function put(offset: number, bytes: Buffer): Promise<void> {
  const file = await open(path, "r+");
  await file.write(bytes, 0, bytes.length, offset);
  await file.close();
}

test("an empty image of the size is taken: locked, marked, and known to be zero", async () => {
  // As qemu-img leaves it.
  await put(0, Buffer.alloc(4096));
  const { image, mark, isZero } = await take();
  expect({ isZero, state: mark.state, size: image.sizeBytes }).toEqual({
    ...{ isZero: true, state: "filling", size: SIZE },
  });
  const other = await ImageFile.open(path);
  await expect(lockImage(other)).rejects.toMatchObject({ code: "image-locked" });
  await other.close();
  await image.close();
});

test.each([
  ["of another size", () => truncate(path, SIZE / 2), "image-not-usable"],
  ["that holds a byte", () => put(SIZE - 1, Buffer.of(1)), "image-exists"],
  ["that holds much", () => put(0, Buffer.alloc(SIZE, 7)), "image-exists"],
  [
    "with a mark",
    async () => {
      const subject = { imageBytes: SIZE, blockBytes: 65_536, migrationId: "m0", epoch: 2 };
      await PartialMark.create(path, subject);
    },
    "image-exists",
  ],
  ["that is not there", () => rm(path), "image-not-usable"],
])("an image %s is refused, and stays as it is", async (_, spoil, code) => {
  await spoil();
  const before = await PartialMark.read(path).catch(() => null);
  await expect(take()).rejects.toMatchObject({ code });
  const after = await PartialMark.read(path).catch(() => null);
  expect(after === null).toBe(before === null);
});

test("nor is one taken that is not its user's, who is asked about the open file itself", async () => {
  const { ino } = statSync(path);
  const refuse = (descriptor: string): void => {
    expect(statSync(descriptor).ino).toBe(ino);
    throw new Error("another file is open");
  };
  await expect(take(refuse)).rejects.toThrow("another file is open");
  expect(await PartialMark.read(path)).toBe(null);
  await (await take()).image.close();
});

import {
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  checkNewImage,
  createImage,
  type CreatedImage,
  type CreateImageOptions,
} from "./create-image.ts";
import { ImageError } from "./image-error.ts";
import { ImageFile } from "./image-file.ts";
import { lockImage } from "./image-lock.ts";
import { isIncomplete, PartialMark } from "./partial-mark.ts";

const MEBIBYTE = 2 ** 20;
const mark = { blockBytes: 65_536, migrationId: "1b4e28ba", epoch: 3 };

let root: string;
let directory: string;
let path: string;
let created: CreatedImage[];

beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "create-")));
  directory = join(root, "images");
  path = join(directory, "disk.raw");
  created = [];
  await mkdir(directory);
});

afterEach(async () => {
  for (const { image } of created) await image.close();
  await rm(root, { recursive: true });
});

async function create(changes: Partial<CreateImageOptions> = {}): Promise<CreatedImage> {
  const options = { directory, name: "disk.raw", sizeBytes: 8 * MEBIBYTE, needBytes: 0, mark };
  const result = await createImage({ ...options, ...changes });
  created.push(result);
  return result;
}

async function isAllZero(image: ImageFile): Promise<boolean> {
  const content = await image.read(0, image.sizeBytes);
  return content.equals(Buffer.alloc(image.sizeBytes));
}

describe("createImage", () => {
  it("makes a sparse file of that size for its user alone, with a mark, and locked", async () => {
    const { image, mark: made, isZero } = await create();
    expect(image).toMatchObject({ path, kind: "file", sizeBytes: 8 * MEBIBYTE, readOnly: false });
    expect(isZero).toBe(true);
    expect(await isAllZero(image)).toBe(true);
    const stats = await stat(path);
    expect(stats.mode & 0o777).toBe(0o600);
    expect(stats.size).toBe(8 * MEBIBYTE);
    expect(await image.allocatedBytes()).toBeLessThan(65_536);
    expect(made.subject).toEqual({ ...mark, imageBytes: 8 * MEBIBYTE });
    expect(await isIncomplete(path)).toBe(true);
    const other = await ImageFile.open(path);
    await expect(lockImage(other)).rejects.toMatchObject({ code: "image-locked" });
    await other.close();
  });

  it("makes it in a subdirectory that is there, and in no other", async () => {
    await mkdir(join(directory, "sub"));
    expect((await create({ name: "sub/disk.raw" })).image.path).toBe(
      join(directory, "sub/disk.raw"),
    );
    await expect(create({ name: "absent/disk.raw" })).rejects.toMatchObject({
      code: "image-not-usable",
    });
  });

  it.each([
    "",
    ".",
    "..",
    "../disk.raw",
    "sub/../disk.raw",
    "/tmp/disk.raw",
    "disk\0.raw",
    "escape/disk.raw",
    "neighbour/disk.raw",
    "disk.raw/",
    "disk.raw.vmferry",
    "disk.raw.vmferry.new",
    "link",
    "dangling",
    "sub",
    "x".repeat(250),
  ])("refuses the name %j and makes nothing", async (name) => {
    await mkdir(join(root, "images-of-others"));
    await mkdir(join(directory, "sub"));
    await symlink("..", join(directory, "escape"));
    await symlink("../images-of-others", join(directory, "neighbour"));
    await writeFile(join(root, "victim"), "");
    await symlink("../victim", join(directory, "link"));
    await symlink("../nowhere", join(directory, "dangling"));
    const before = await readdir(root, { recursive: true });
    await expect(create({ name })).rejects.toMatchObject({ code: "image-not-usable" });
    expect(await readdir(root, { recursive: true })).toEqual(before);
  });

  it("refuses a file that has no mark, and leaves it as it is", async () => {
    await writeFile(path, "precious");
    await expect(create()).rejects.toMatchObject({ code: "image-exists" });
    expect(await readFile(path, "utf8")).toBe("precious");
    expect(await isIncomplete(path)).toBe(false);
  });

  it("refuses a file whose mark says that it is whole", async () => {
    const { image, mark: made } = await create();
    await image.write(0, Buffer.from("precious"));
    await made.update({ bitmap: new Uint8Array(16).fill(0xff), state: "whole" });
    await image.close();
    await expect(create()).rejects.toMatchObject({ code: "image-exists" });
    expect((await readFile(path)).subarray(0, 8).toString()).toBe("precious");
    expect((await PartialMark.read(path)) as PartialMark).toMatchObject({ state: "whole" });
  });

  it("refuses a file that a guest uses already while it is filled", async () => {
    const { image, mark: made } = await create();
    await made.update({ state: "lazy" });
    await image.close();
    await expect(create()).rejects.toMatchObject({ code: "image-exists" });
    expect((await PartialMark.read(path)) as PartialMark).toMatchObject({ state: "lazy" });
  });

  it.each(["filling", "damaged"])("starts anew from a leftover whose mark is %s", async (state) => {
    const { image, mark: made } = await create();
    await image.write(MEBIBYTE, Buffer.alloc(4 * MEBIBYTE, 1));
    await made.update({ bitmap: new Uint8Array(16).fill(1) });
    await image.close();
    if (state === "damaged") await truncate(made.path, 50);

    const sizeBytes = 16 * MEBIBYTE;
    const again = await create({ sizeBytes, mark: { ...mark, migrationId: "next" } });
    expect(again.image.sizeBytes).toBe(sizeBytes);
    expect(await isAllZero(again.image)).toBe(true);
    expect(await again.image.allocatedBytes()).toBeLessThan(65_536);
    const read = await PartialMark.read(path);
    expect((read as PartialMark).subject).toMatchObject({
      migrationId: "next",
      imageBytes: sizeBytes,
    });
    expect((read as PartialMark).bitmap()).toEqual(new Uint8Array(32));
  });

  it("starts anew where a crash left a mark alone, or an empty file", async () => {
    await PartialMark.create(path, { ...mark, migrationId: "earlier", imageBytes: 1 });
    await (await create()).image.close();
    await rm(path);
    await rm(`${path}.vmferry`);
    await writeFile(path, "");
    expect((await create()).image.sizeBytes).toBe(8 * MEBIBYTE);
  });

  it("leaves a leftover alone that somebody holds, and one that has another name", async () => {
    const { image } = await create();
    await image.write(0, Buffer.from("held"));
    await expect(create()).rejects.toMatchObject({ code: "image-locked" });
    await image.close();
    await link(path, join(directory, "other"));
    await expect(create()).rejects.toMatchObject({ code: "image-exists" });
    expect((await readFile(path)).subarray(0, 4).toString()).toBe("held");
  });

  it("leaves an image alone whose mark is not a file of this user", async () => {
    await writeFile(path, "precious");
    await symlink("disk.raw", `${path}.vmferry`);
    await expect(create()).rejects.toMatchObject({ code: "image-not-usable" });
    expect(await readFile(path, "utf8")).toBe("precious");
  });

  it("lets one of many have the name that come at once", async () => {
    for (let round = 0; round < 10; round++) {
      const name = `disk${round}.raw`;
      const attempts = Array.from({ length: 6 }, (_, index) =>
        create({ name, mark: { ...mark, migrationId: `m${index}` } }),
      );
      const outcomes = await Promise.allSettled(attempts);
      const winners = outcomes.filter(({ status }) => status === "fulfilled");
      expect(winners.length).toBeLessThanOrEqual(1);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") {
          expect(outcome.reason).toMatchObject({ code: "image-locked" });
        }
      }
      const winner = created.find(({ image }) => image.path.endsWith(`/${name}`));
      if (winner === undefined) continue;
      const read = await PartialMark.read(winner.image.path);
      expect((read as PartialMark).subject).toEqual(winner.mark.subject);
      expect((await stat(winner.image.path)).size).toBe(8 * MEBIBYTE);
    }
  });

  it("says how much is needed and how much is free, and makes nothing", async () => {
    const needBytes = 2 ** 52;
    const refusal: unknown = await create({ needBytes }).catch((error: unknown) => error);
    expect(refusal).toMatchObject({
      detail: {
        code: "image-no-space",
        directory,
        needBytes,
        marginBytes: Math.ceil(needBytes * 0.01),
      },
    });
    const { message, detail } = refusal as Error & { detail: { freeBytes: number } };
    expect(message).toContain(`${needBytes} bytes`);
    expect(message).toContain(`${detail.freeBytes} free`);
    expect(await readdir(directory)).toEqual([]);
  });

  it("removes the file again where the file system cannot have one of that size", async () => {
    const sizeBytes = 2 ** 50;
    const large = { ...mark, blockBytes: 2 ** 30 };
    const attempt = await create({ sizeBytes, mark: large }).catch((error: unknown) => error);
    // Some file systems can, and then it is as good as any other.
    if (!(attempt instanceof Error)) return;
    expect(attempt).toMatchObject({ code: "image-not-usable" });
    expect(await readdir(directory)).not.toContain("disk.raw");
  });
});

describe("checkNewImage says what createImage would, and changes nothing", () => {
  const look = (name = "disk.raw"): Promise<number | null> =>
    checkNewImage({ directory, name, sizeBytes: 8 * MEBIBYTE });

  it.each([
    ["a file that has no mark", () => writeFile(path, "somebody's")],
    ["a directory", () => mkdir(path)],
    ["a symbolic link", () => symlink("elsewhere", path)],
    [
      "an image that is whole",
      async (): Promise<void> => {
        const { image, mark: made } = await create();
        await made.complete();
        await image.close();
      },
    ],
    [
      "a leftover with another name",
      async (): Promise<void> => {
        await (await create()).image.close();
        await link(path, join(directory, "other"));
      },
    ],
  ])("%s is in the way", async (_, make) => {
    await make();
    const before = await readdir(directory);
    const refusal = await look().then(
      () => null,
      (error: unknown) => error,
    );
    expect(refusal).toBeInstanceOf(ImageError);
    expect(await readdir(directory)).toEqual(before);
    await expect(create()).rejects.toBeInstanceOf(ImageError);
  });

  it.each(["../disk.raw", "none/disk.raw", "disk.raw.vmferry"])("%s has no place", async (name) => {
    await expect(look(name)).rejects.toBeInstanceOf(ImageError);
  });

  it("nothing there is a place, and so is an empty file", async () => {
    expect(await look()).toBe(0);
    expect(await readdir(directory)).toEqual([]);
    await writeFile(path, "");
    expect(await look()).toBe(0);
    await create();
  });

  it("a leftover is a place, and what it takes is going to be free", async () => {
    const { image } = await create();
    await image.write(0, Buffer.alloc(MEBIBYTE, 1));
    await image.close();
    expect(await look()).toBeGreaterThanOrEqual(MEBIBYTE);
    expect((await stat(path)).size).toBe(8 * MEBIBYTE);
  });

  it("a leftover that somebody holds is none, and goes on being held", async () => {
    const { lock } = await create();
    for (let time = 0; time < 2; time++) {
      await expect(look()).rejects.toMatchObject({ code: "image-locked" });
    }
    await expect(create()).rejects.toMatchObject({ code: "image-locked" });
    await lock.unlock();
    expect(await look()).not.toBeNull();
  });
});

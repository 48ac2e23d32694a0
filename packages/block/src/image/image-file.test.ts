import { execFileSync } from "node:child_process";
import { link, mkdtemp, open, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { blockDeviceContract } from "../block-device-contract.ts";
import { ImageFile, type OpenImageOptions } from "./image-file.ts";

const MEBIBYTE = 2 ** 20;

let directory: string;
let path: string;
let images: ImageFile[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "image-"));
  path = join(directory, "disk.raw");
  images = [];
  await writeFile(path, "");
  await truncate(path, 8 * MEBIBYTE);
});

afterEach(async () => {
  for (const image of images) await image.close();
  await rm(directory, { recursive: true });
});

async function openImage(options?: OpenImageOptions): Promise<ImageFile> {
  const image = await ImageFile.open(path, options);
  images.push(image);
  return image;
}

blockDeviceContract("An image in a file", async () => {
  const image = await openImage();
  return { device: image, close: () => image.close() };
});

describe("ImageFile.open", () => {
  it("takes a regular file and tells its size", async () => {
    const image = await openImage();
    expect(image).toMatchObject({ path, kind: "file", sizeBytes: 8 * MEBIBYTE, readOnly: false });
  });

  it.each(["/dev/zero", "/dev/tty", ".", "absent", "link", "fifo"])(
    "refuses %s, which is no image",
    async (name) => {
      await symlink("disk.raw", join(directory, "link"));
      execFileSync("mkfifo", [join(directory, "fifo")]);
      const refused = { code: "image-not-usable" };
      const wanted = name.startsWith("/") ? name : join(directory, name);
      await expect(ImageFile.open(wanted)).rejects.toMatchObject(refused);
      await expect(ImageFile.open(wanted, { readOnly: true })).rejects.toMatchObject(refused);
    },
  );
});

describe("ImageFile", () => {
  it("gives space back with a punch and a trim, and not with a plain zeroing", async () => {
    const image = await openImage();
    await image.write(0, Buffer.alloc(4 * MEBIBYTE, 1));
    await image.flush();
    const full = await image.allocatedBytes();
    expect(full).toBeGreaterThanOrEqual(4 * MEBIBYTE);
    await image.writeZeroes(0, MEBIBYTE, { mayPunch: false });
    await image.flush();
    expect(await image.allocatedBytes()).toBeGreaterThanOrEqual(4 * MEBIBYTE);
    await image.writeZeroes(0, MEBIBYTE, { mayPunch: true });
    await image.trim(MEBIBYTE, MEBIBYTE);
    await image.flush();
    expect(await image.allocatedBytes()).toBeLessThanOrEqual(full - 2 * MEBIBYTE);
    expect((await readFile(path)).length).toBe(8 * MEBIBYTE);
  });

  it("tells holes from data, and of a bounded number at a time", async () => {
    const image = await openImage();
    expect(await image.extents(0, 8 * MEBIBYTE)).toEqual([
      { offset: 0, length: 8 * MEBIBYTE, kind: "zero" },
    ]);
    await image.write(MEBIBYTE, Buffer.alloc(MEBIBYTE, 1));
    expect(await image.extents(4096, 8 * MEBIBYTE - 4096)).toEqual([
      { offset: 4096, length: MEBIBYTE - 4096, kind: "zero" },
      { offset: MEBIBYTE, length: MEBIBYTE, kind: "data" },
      { offset: 2 * MEBIBYTE, length: 6 * MEBIBYTE, kind: "zero" },
    ]);
    expect(await image.extents(MEBIBYTE + 5, 10)).toEqual([
      { offset: MEBIBYTE + 5, length: 10, kind: "data" },
    ]);
    for (let offset = 0; offset < 8 * MEBIBYTE; offset += 32_768) {
      await image.write(offset, Buffer.of(1));
    }
    const extents = await image.extents(0, 8 * MEBIBYTE);
    expect(extents.length).toBeLessThan(140);
  });

  it("calls what a shortened file lacks data, which then fail to be read", async () => {
    const image = await openImage();
    await truncate(path, MEBIBYTE);
    expect(await image.extents(0, 8 * MEBIBYTE)).toEqual([
      { offset: 0, length: 8 * MEBIBYTE, kind: "data" },
    ]);
    await expect(image.read(MEBIBYTE - 4, 8)).rejects.toMatchObject({
      detail: { code: "block-io", errno: "EIO", operation: "read", offset: MEBIBYTE - 4 },
    });
    expect(image.suspect).toBe(false);
  });

  it("changes nothing in an image that is open for reading, and does not call it suspect", async () => {
    const image = await openImage({ readOnly: true });
    const refused = { detail: { errno: "EPERM" } };
    await expect(image.write(0, Buffer.of(1))).rejects.toMatchObject(refused);
    await expect(image.writeZeroes(0, 1, { mayPunch: true })).rejects.toMatchObject(refused);
    await expect(image.trim(0, 1)).rejects.toMatchObject(refused);
    await image.flush();
    expect(image.suspect).toBe(false);
    expect(await image.read(0, 4)).toEqual(Buffer.alloc(4));
  });

  it("treats a range outside the disk as a bug of the caller", async () => {
    const image = await openImage();
    for (const [offset, length] of [
      [8 * MEBIBYTE, 1],
      [8 * MEBIBYTE - 1, 2],
      [-1, 2],
      [0, 0],
    ] as const) {
      await expect(image.read(offset, length)).rejects.toThrow("invariant broken");
      await expect(image.write(offset, Buffer.alloc(length))).rejects.toThrow("invariant broken");
      await expect(image.trim(offset, length)).rejects.toThrow("invariant broken");
      await expect(image.extents(offset, length)).rejects.toThrow("invariant broken");
    }
    expect((await readFile(path)).length).toBe(8 * MEBIBYTE);
  });

  it("closes behind the requests under way and refuses later ones", async () => {
    const image = await openImage();
    const writes = Array.from({ length: 32 }, (_, index) =>
      image.write(index * 65_536, Buffer.alloc(65_536, index + 1)),
    );
    const closed = image.close();
    expect(image.close()).toBe(closed);
    const refused = { detail: { code: "block-io", errno: "ESHUTDOWN" } };
    await expect(image.read(0, 1)).rejects.toMatchObject(refused);
    await expect(image.write(0, Buffer.of(1))).rejects.toMatchObject(refused);
    await expect(image.flush()).rejects.toMatchObject(refused);
    await expect(image.allocatedBytes()).rejects.toMatchObject(refused);
    await closed;
    await Promise.all(writes);
    const content = await readFile(path);
    for (let index = 0; index < 32; index++) expect(content[index * 65_536]).toBe(index + 1);
    expect(image.suspect).toBe(false);
  });

  it("keeps its file when another one takes the name", async () => {
    const image = await openImage();
    const other = join(directory, "other");
    await link(path, other);
    await rm(path);
    await image.write(0, Buffer.from("here"));
    const handle = await open(other);
    const { buffer } = await handle.read({ buffer: Buffer.alloc(4), position: 0 });
    await handle.close();
    expect(buffer.toString()).toBe("here");
  });
});

import { fdatasync } from "node:fs";
import { statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { blockDeviceContract } from "../block-device-contract.ts";
import { createImage } from "./create-image.ts";
import { HostFixture, MAY_SKIP_ROOT_TESTS } from "./host-fixture.ts";
import { ImageFile } from "./image-file.ts";
import { PartialMark } from "./partial-mark.ts";

const MEBIBYTE = 2 ** 20;
const TITLE = MAY_SKIP_ROOT_TESTS
  ? "storage of other kinds (needs root)"
  : "storage of other kinds";

describe.skipIf(MAY_SKIP_ROOT_TESTS)(TITLE, () => {
  let host: HostFixture;
  let images: ImageFile[];

  beforeEach(async () => {
    images = [];
    host = await HostFixture.make();
  });
  afterEach(async () => {
    for (const image of images) await image.close();
    await host.dispose();
  });

  async function openImage(path: string): Promise<ImageFile> {
    const image = await ImageFile.open(path);
    images.push(image);
    return image;
  }

  // tmpfs punches holes and cannot zero a range; ramfs can do neither.
  for (const type of ["tmpfs", "ramfs"]) {
    blockDeviceContract(`An image on ${type}`, async () => {
      const directory = await host.mount(type);
      const image = await openImage(await host.file(join(directory, "disk.raw"), 2 * MEBIBYTE));
      return { device: image, close: () => image.close() };
    });
  }

  describe("a full file system", () => {
    let directory: string;
    let image: ImageFile;

    beforeEach(async () => {
      directory = await host.mount("tmpfs", ["-o", "size=4m"]);
      image = await openImage(await host.file(join(directory, "disk.raw"), 16 * MEBIBYTE));
    });

    it("fails a write with ENOSPC, which makes nothing suspect and passes with the space", async () => {
      const tooMuch = image.write(MEBIBYTE, Buffer.alloc(8 * MEBIBYTE, 1));
      await expect(tooMuch).rejects.toMatchObject({
        detail: { code: "block-io", errno: "ENOSPC", operation: "write", offset: MEBIBYTE },
        cause: { code: "ENOSPC" },
      });
      expect(image.suspect).toBe(false);
      await image.flush();
      await image.trim(0, 16 * MEBIBYTE);
      await image.write(MEBIBYTE, Buffer.alloc(2 * MEBIBYTE, 1));
      await image.flush();
    });

    it("fails a zeroing that has to write with ENOSPC, and not one that punches", async () => {
      const zeroing = image.writeZeroes(0, 16 * MEBIBYTE, { mayPunch: false });
      await expect(zeroing).rejects.toMatchObject({
        detail: { errno: "ENOSPC", operation: "write-zeroes" },
      });
      await image.writeZeroes(0, 16 * MEBIBYTE, { mayPunch: true });
      expect(await image.allocatedBytes()).toBe(0);
      expect(image.suspect).toBe(false);
    });

    it("leaves a mark as it was where the next one has no place", async () => {
      const subject = { imageBytes: 2 ** 30, blockBytes: 1024, migrationId: "m1", epoch: 1 };
      const mark = await PartialMark.create(image.path, subject);
      const { bavail, bsize } = await statfs(directory);
      await writeFile(join(directory, "filler"), Buffer.alloc(bavail * bsize));
      const bitmap = new Uint8Array(2 ** 17).fill(0xff);
      await expect(mark.update({ bitmap })).rejects.toMatchObject({ code: "image-not-usable" });
      const read = await PartialMark.read(image.path);
      expect((read as PartialMark).bitmap().every((byte) => byte === 0)).toBe(true);
      await image.trim(0, 16 * MEBIBYTE);
      await mark.remove();
      expect(await PartialMark.read(image.path)).toBeNull();
    });

    it("has no room for a new image", async () => {
      const attempt = createImage({
        directory,
        name: "new.raw",
        sizeBytes: 16 * MEBIBYTE,
        needBytes: MEBIBYTE,
        mark: { blockBytes: 65_536, migrationId: "m1", epoch: 1 },
      });
      await expect(attempt).rejects.toMatchObject({
        detail: { code: "image-no-space", needBytes: MEBIBYTE, marginBytes: 64 * MEBIBYTE },
      });
    });
  });

  describe("a disk that fails to store what it took", () => {
    let image: ImageFile;

    beforeEach(async () => {
      // A device larger than what holds it: the page cache takes more than can be written back.
      const directory = await host.mount("tmpfs", ["-o", "size=4m"]);
      const backingFile = await host.file(join(directory, "backing"), 32 * MEBIBYTE);
      image = await openImage(await host.loopDevice(backingFile));
    });

    it("makes the image suspect for ever with the flush that fails", async () => {
      await image.write(0, Buffer.alloc(16 * MEBIBYTE, 1));
      expect(image.suspect).toBe(false);
      await expect(image.flush()).rejects.toMatchObject({
        detail: { code: "block-io", operation: "flush", offset: null },
      });
      expect(image.suspect).toBe(true);
      // What the kernel itself says by now is why an image has to remember.
      await image.withDescriptor("fdatasync", promisify(fdatasync));
      for (let i = 0; i < 3; i++) {
        await expect(image.flush()).rejects.toMatchObject({ detail: { errno: "EIO" } });
      }
      await image.write(0, Buffer.of(1));
      await expect(image.flush()).rejects.toMatchObject({ detail: { errno: "EIO" } });
    });

    it("fails every one of several flushes at once", async () => {
      await image.write(0, Buffer.alloc(16 * MEBIBYTE, 1));
      const flushes = Array.from({ length: 8 }, () => image.flush());
      await new Promise(setImmediate);
      flushes.push(...Array.from({ length: 8 }, () => image.flush()));
      for (const outcome of await Promise.allSettled(flushes)) {
        expect(outcome.status).toBe("rejected");
      }
    });
  });
});

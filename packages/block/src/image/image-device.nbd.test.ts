import { execFileSync } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { blockDeviceContract } from "../block-device-contract.ts";
import { checkNewImage, createImage } from "./create-image.ts";
import { HostFixture, MAY_SKIP_ROOT_TESTS } from "./host-fixture.ts";
import { ImageFile } from "./image-file.ts";
import { PartialMark } from "./partial-mark.ts";

const MEBIBYTE = 2 ** 20;
const SIZE_BYTES = 8 * MEBIBYTE;
const TITLE = MAY_SKIP_ROOT_TESTS ? "block devices (needs root)" : "block devices";

describe.skipIf(MAY_SKIP_ROOT_TESTS)(TITLE, () => {
  let host: HostFixture;
  let backingFile: string;
  let device: string;
  let images: ImageFile[];

  beforeEach(async () => {
    images = [];
    host = await HostFixture.make();
    backingFile = await host.file(join(host.directory, "backing"), SIZE_BYTES);
    device = await host.loopDevice(backingFile);
  });
  afterEach(async () => {
    for (const image of images) await image.close();
    await host.dispose();
  });

  async function openDevice(options?: { readOnly: boolean }): Promise<ImageFile> {
    const image = await ImageFile.open(device, options);
    images.push(image);
    return image;
  }

  blockDeviceContract("An image on a loop device", async () => {
    const image = await openDevice();
    return { device: image, close: () => image.close() };
  });

  it("have the size of the device, all of which is data and takes space", async () => {
    const image = await openDevice();
    expect(image).toMatchObject({ kind: "host-device", sizeBytes: SIZE_BYTES });
    expect(await image.allocatedBytes()).toBe(SIZE_BYTES);
    expect(await image.extents(512, 1024)).toEqual([{ offset: 512, length: 1024, kind: "data" }]);
  });

  it("can be looked at by several at once", async () => {
    const place = { directory: dirname(device), name: basename(device), sizeBytes: SIZE_BYTES };
    const looks = Array.from({ length: 50 }, () => checkNewImage(place));
    expect(new Set(await Promise.all(looks))).toEqual(new Set([null]));
  });

  it("are durable after a flush", async () => {
    const image = await openDevice();
    await image.write(MEBIBYTE, Buffer.from("durable"));
    await image.flush();
    const content = await readFile(backingFile);
    expect(content.subarray(MEBIBYTE, MEBIBYTE + 7).toString()).toBe("durable");
  });

  it("give space back where they can, with a punch and with a trim", async () => {
    const image = await openDevice();
    const allocated = async (): Promise<number> => (await stat(backingFile)).blocks * 512;
    await image.write(0, Buffer.alloc(4 * MEBIBYTE, 1));
    await image.flush();
    expect(await allocated()).toBeGreaterThanOrEqual(4 * MEBIBYTE);
    await image.writeZeroes(0, MEBIBYTE, { mayPunch: false });
    await image.flush();
    expect(await allocated()).toBeGreaterThanOrEqual(4 * MEBIBYTE);
    await image.writeZeroes(0, MEBIBYTE, { mayPunch: true });
    await image.trim(MEBIBYTE, MEBIBYTE);
    await image.flush();
    expect(await allocated()).toBeLessThanOrEqual(2 * MEBIBYTE + 65_536);
  });

  it("are not claimed: a guest that has one open too may discard and zero it", async () => {
    const image = await openDevice();
    const other = await openDevice();
    await image.write(0, Buffer.from("seen"));
    expect((await other.read(0, 4)).toString()).toBe("seen");
    await other.writeZeroes(0, MEBIBYTE, { mayPunch: true });
    expect(await image.read(0, 4)).toEqual(Buffer.alloc(4));
    execFileSync("blkdiscard", ["-z", "-l", String(MEBIBYTE), device]);
  });

  describe("in createImage", () => {
    const mark = { blockBytes: 65_536, migrationId: "m1", epoch: 1 };
    let path: string;

    beforeEach(async () => {
      path = join(host.directory, "disk.raw");
      const { rdev } = await stat(device);
      const numbers = [String(Math.floor(rdev / 256)), String(rdev % 256)];
      execFileSync("mknod", [path, "b", ...numbers]);
    });

    function create(sizeBytes: number): ReturnType<typeof createImage> {
      const directory = dirname(path);
      return createImage({ directory, name: basename(path), sizeBytes, needBytes: 2 ** 50, mark });
    }

    it("are refused while they are mounted", async () => {
      execFileSync("mkfs.ext4", ["-q", device]);
      await host.mountDevice(device);
      await expect(create(SIZE_BYTES)).rejects.toMatchObject({ code: "image-not-usable" });
    });

    it("are used as they are, with a mark, and locked", async () => {
      const before = await ImageFile.open(path);
      await before.write(0, Buffer.from("as it was"));
      await before.close();
      const { image, isZero } = await create(SIZE_BYTES);
      images.push(image);
      expect(isZero).toBe(false);
      expect((await image.read(0, 9)).toString()).toBe("as it was");
      expect(await PartialMark.read(path)).toMatchObject({ state: "filling" });
      await image.close();
      const again = await create(SIZE_BYTES);
      images.push(again.image);
    });

    it("are refused where the size differs or the mark says whole", async () => {
      const refused = { code: "image-not-usable" };
      await expect(create(SIZE_BYTES + 512)).rejects.toMatchObject(refused);
      await expect(create(SIZE_BYTES - 512)).rejects.toMatchObject(refused);
      expect(await PartialMark.read(path)).toBeNull();
      const { image, mark: made } = await create(SIZE_BYTES);
      await made.update({ state: "whole", bitmap: new Uint8Array(16).fill(0xff) });
      await image.close();
      await expect(create(SIZE_BYTES)).rejects.toMatchObject({ code: "image-exists" });
      expect((await stat(path)).isBlockDevice()).toBe(true);
    });
  });
});

import { mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { MarkSubject } from "./mark-codec.ts";
import { isIncomplete, isMarkName, PartialMark } from "./partial-mark.ts";

const subject: MarkSubject = {
  imageBytes: 12 * 65_536,
  blockBytes: 65_536,
  migrationId: "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
  epoch: 3,
};
const FULL = Uint8Array.of(0xff, 0x0f);

let directory: string;
let image: string;
let markPath: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mark-"));
  image = join(directory, "disk.raw");
  markPath = `${image}.vmferry`;
});
afterEach(() => rm(directory, { recursive: true }));

async function readMark(): Promise<PartialMark> {
  const mark = await PartialMark.read(image);
  if (mark instanceof PartialMark) return mark;
  throw new Error(`the mark is ${mark ?? "absent"}`);
}

describe("PartialMark", () => {
  it("is made for its user alone, with no block present", async () => {
    const mark = await PartialMark.create(image, subject);
    expect(mark.path).toBe(markPath);
    expect((await stat(markPath)).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(["disk.raw.vmferry"]);
    const read = await readMark();
    expect(read).toMatchObject({ subject, state: "filling" });
    expect(read.bitmap()).toEqual(Uint8Array.of(0, 0));
  });

  it("keeps what it is told, together or one by one", async () => {
    const mark = await PartialMark.create(image, subject);
    await mark.update({ bitmap: Uint8Array.of(0x81, 0x02) });
    expect((await readMark()).bitmap()).toEqual(Uint8Array.of(0x81, 0x02));
    await mark.update({ bitmap: FULL, state: "whole" });
    expect(await readMark()).toMatchObject({ subject, state: "whole" });
    await mark.update({ state: "filling" });
    const read = await readMark();
    expect(read.state).toBe("filling");
    expect(read.bitmap()).toEqual(FULL);
    await read.update({ state: "whole" });
    expect(await readdir(directory)).toEqual(["disk.raw.vmferry"]);
  });

  it("has every block once it is complete", async () => {
    const mark = await PartialMark.create(image, subject);
    await mark.complete();
    const read = await readMark();
    expect([read.state, read.bitmap()]).toEqual(["whole", FULL]);
  });

  it("takes the bitmap as it is at the call, and updates in the order of the calls", async () => {
    const mark = await PartialMark.create(image, subject);
    const bitmap = new Uint8Array(2);
    const updates = Array.from({ length: 8 }, (_, index) => {
      bitmap[0] = index;
      return mark.update({ bitmap });
    });
    bitmap.fill(0xff);
    await Promise.all(updates);
    expect((await readMark()).bitmap()).toEqual(Uint8Array.of(7, 0));
  });

  it("refuses an update that could not be read, and takes the next one", async () => {
    const mark = await PartialMark.create(image, subject);
    await expect(mark.update({ state: "whole" })).rejects.toThrow("invariant broken");
    await expect(mark.update({ bitmap: Uint8Array.of(1) })).rejects.toThrow("invariant broken");
    expect(mark.state).toBe("filling");
    await mark.update({ bitmap: FULL });
    expect((await readMark()).bitmap()).toEqual(FULL);
  });

  it("is not made where there is one, and replaces one only where that is meant", async () => {
    await PartialMark.create(image, subject);
    const other = { ...subject, migrationId: "other" };
    await expect(PartialMark.create(image, other)).rejects.toMatchObject({ code: "image-exists" });
    expect((await readMark()).subject).toEqual(subject);
    await PartialMark.replace(image, other);
    expect((await readMark()).subject).toEqual(other);
  });

  it("is not made for an image of more blocks than a mark may have", async () => {
    const large = { ...subject, imageBytes: 2 ** 50 };
    await expect(PartialMark.create(image, large)).rejects.toMatchObject({
      code: "image-not-usable",
    });
    expect(await readdir(directory)).toEqual([]);
  });

  it("is read as damaged after every truncation and every flipped byte", async () => {
    await PartialMark.create(image, subject);
    const bytes = await readFile(markPath);
    for (let length = 0; length < bytes.length; length++) {
      await writeFile(markPath, bytes.subarray(0, length));
      expect(await PartialMark.read(image), `${length} bytes`).toBe("damaged");
    }
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped[at]! ^= 0xff;
      await writeFile(markPath, flipped);
      expect(await PartialMark.read(image), `byte ${at}`).toBe("damaged");
    }
    await writeFile(markPath, Buffer.concat([bytes, Buffer.of(0)]));
    expect(await PartialMark.read(image)).toBe("damaged");
    expect(await isIncomplete(image)).toBe(true);
    await writeFile(markPath, bytes);
    expect(await PartialMark.read(image)).toBeInstanceOf(PartialMark);
  });

  it("goes away together with what an update left half written", async () => {
    const mark = await PartialMark.create(image, subject);
    await writeFile(`${markPath}.new`, "half");
    await mark.remove();
    expect(await readdir(directory)).toEqual([]);
    await mark.remove();
    expect(await PartialMark.read(image)).toBeNull();
  });

  it("gets over a half-written update of an earlier life", async () => {
    await writeFile(`${markPath}.new`, "half");
    const mark = await PartialMark.create(image, subject);
    await writeFile(`${markPath}.new`, "half");
    await mark.update({ bitmap: FULL });
    expect((await readMark()).bitmap()).toEqual(FULL);
    expect(await readdir(directory)).toEqual(["disk.raw.vmferry"]);
  });

  it("neither removes nor replaces nor follows what is no regular file", async () => {
    const mark = await PartialMark.create(image, subject);
    await rm(markPath);
    await writeFile(join(directory, "precious"), "precious");
    const refused = { code: "image-not-usable" };
    for (const make of [
      () => symlink("precious", markPath),
      () => mkdir(markPath),
      () => symlink("precious", `${markPath}.new`),
    ]) {
      await make();
      await expect(mark.update({ bitmap: FULL })).rejects.toMatchObject(refused);
      await expect(mark.remove()).rejects.toMatchObject(refused);
      await rm(markPath, { recursive: true, force: true });
      await rm(`${markPath}.new`, { force: true });
    }
    await symlink("precious", markPath);
    expect(await PartialMark.read(image)).toBe("damaged");
    expect(await readFile(join(directory, "precious"), "utf8")).toBe("precious");
  });
});

describe("isIncomplete", () => {
  it("holds for an image with any mark, and for no other", async () => {
    expect(await isIncomplete(image)).toBe(false);
    const mark = await PartialMark.create(image, subject);
    expect(await isIncomplete(image)).toBe(true);
    await mark.update({ bitmap: FULL, state: "whole" });
    expect(await isIncomplete(image)).toBe(true);
    await mark.remove();
    expect(await isIncomplete(image)).toBe(false);
    await writeFile(markPath, "");
    expect(await isIncomplete(image)).toBe(true);
  });
});

describe("isMarkName", () => {
  it("knows marks and those that are being written", () => {
    for (const name of ["disk.raw.vmferry", "disk.raw.vmferry.new"]) {
      expect(isMarkName(name)).toBe(true);
    }
    for (const name of ["disk.raw", "disk.vmferry.raw", "vmferry.new", "disk.new"]) {
      expect(isMarkName(name)).toBe(false);
    }
  });
});

import { mkdtemp, open, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import { ImageFile, lockImage } from "@vmferry/block";
import type { FollowingDisk } from "../adapters/left-disks.ts";
import { LazyDeparture } from "./lazy-departure.ts";
import { noteLeft, StillImages } from "./still-images.ts";

const SIZE = 65_536;
const EARLIER = new Date("2020-01-01T00:00:00Z");
const inUse = { detail: { code: "image-locked" } };
const refused = (reason: string): object => ({
  code: "source-disk-failed",
  message: expect.stringContaining(reason) as string,
});

let directory: string;
let disks: FollowingDisk[];
/** As QEMU has it. */
let writer: ImageFile;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "still-"));
  disks = ["disk0", "disk1"].map((id, index) => ({
    ...{ id, index, path: join(directory, `${id}.raw`), sizeBytes: SIZE, unitBytes: 4096 },
  }));
  for (const { path } of disks) {
    await writeFile(path, Buffer.alloc(SIZE, 1));
    // The clock of the file system may stand still for some milliseconds.
    await utimes(path, EARLIER, EARLIER);
  }
  writer = await ImageFile.open(disks[1]!.path);
});

afterEach(async () => {
  await writer.close();
  await rm(directory, { recursive: true });
});

async function writtenTo(path: string): Promise<void> {
  const file = await open(path, "r+");
  await file.write(Buffer.alloc(512, 2), 0, 512, 4096);
  await file.close();
}

describe("the images that a guest has left", () => {
  it("are nobody's to write to until they are closed", async () => {
    const images = await StillImages.open(await Promise.all(disks.map(noteLeft)));
    await expect(lockImage(writer)).rejects.toMatchObject(inUse);
    await images.close();
    await lockImage(writer);
  });

  it("are refused while somebody writes to one, and none stays locked then", async () => {
    const left = await Promise.all(disks.map(noteLeft));
    const lock = await lockImage(writer);
    await expect(StillImages.open(left)).rejects.toMatchObject(refused("in use"));
    await lock.unlock();
    const first = await ImageFile.open(disks[0]!.path);
    await lockImage(first);
    await first.close();
  });

  it("are refused where one was written to since, or has another size", async () => {
    const left = await Promise.all(disks.map(noteLeft));
    await writtenTo(disks[1]!.path);
    await expect(StillImages.open(left)).rejects.toMatchObject(refused("was written to"));
    await truncate(disks[1]!.path, SIZE - 512);
    await expect(StillImages.open(left)).rejects.toMatchObject(refused("bytes"));
    await lockImage(writer);
  });

  it("are not refused any more where somebody who knows better gives one its time back", async () => {
    const left = await Promise.all(disks.map(noteLeft));
    await utimes(disks[1]!.path, EARLIER, new Date());
    const reason = "after the guest had left it at 2020-01-01T00:00:00.000000000Z";
    await expect(StillImages.open(left)).rejects.toMatchObject(refused(reason));
    await utimes(disks[1]!.path, EARLIER, EARLIER);
    const images = await StillImages.open(left);
    await images.close();
  });

  it("may be read meanwhile", async () => {
    const left = await Promise.all(disks.map(noteLeft));
    const images = await StillImages.open(left);
    expect((await writer.read(0, 4))[0]).toBe(1);
    await images.close();
  });
});

describe("disks of a guest that is about to leave", () => {
  const departure = (): LazyDeparture =>
    new LazyDeparture({
      ...{ disks, hashSeed: "0123456789abcdef", memoryDir: directory, compression: true },
      about: { migrationId: "m1", epoch: 2, generation: 1, incarnation: "s1" },
      clock: new ManualClock(),
      logger: createLogger({ role: "source", level: "silent" }),
      random: () => 0.5,
      dialer: { blocks: () => Promise.reject(new Error("nobody answers")) },
      limits: () => ({ bandwidthBytesPerSecond: null }),
    });

  it("are QEMU's no more from the fence on, also when they are served, until they are closed", async () => {
    const leaving = departure();
    await leaving.keep();
    const lock = await lockImage(writer);
    await lock.unlock();
    await leaving.fence();
    await expect(lockImage(writer)).rejects.toMatchObject(inUse);
    leaving.serve();
    await expect(lockImage(writer)).rejects.toMatchObject(inUse);
    await leaving.close();
    await lockImage(writer);
  });

  it("keep it from leaving where somebody has its QEMU write before the fence", async () => {
    const leaving = departure();
    await leaving.keep();
    await writtenTo(disks[0]!.path);
    await expect(leaving.fence()).rejects.toMatchObject(refused("was written to"));
    await leaving.close();
    await lockImage(writer);
  });

  it("are given back where the attempt ends while they are being fenced", async () => {
    const leaving = departure();
    await leaving.keep();
    const fenced = leaving.fence();
    await leaving.close();
    await fenced;
    await lockImage(writer);
  });
});

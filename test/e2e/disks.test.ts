import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { ApiProblem, controlOf, writeDiskImage } from "@vmferry/testkit";
import { attachLoopDevice } from "../loop-device.ts";
import { convertToQcow2, expectEqualDigests, expectEqualImages } from "../expect-disks.ts";
import { expectArrives } from "../expect-guest.ts";
import type { MoveOptions, MovingGuest } from "../moving-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const run = promisify(execFile);
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** Long enough for the guest to write behind and before the cursor. */
const LINK = { bandwidthBytesPerSecond: 60 * MIB };

describe("a guest takes its disks along", () => {
  const test = useProxiedLab();
  let disks = 0;

  const makeDisk = async (sizeBytes: number, fill: number): Promise<string> => {
    const image = `disk${++disks}.raw`;
    await test.lab.makeDisk(image, sizeBytes, { fill });
    return image;
  };

  /**
   * Moves the guest, and compares the images while neither QEMU runs: the token is on its way, and
   * whoever would own the guest next does not know it yet.
   */
  const moveComparing = async (
    guest: MovingGuest,
    images: readonly string[],
    options: MoveOptions,
  ): Promise<MigrationObject> => {
    const held = test.proxy.hold(controlOf("token"));
    const id = await guest.migrate(options);
    await held;
    for (const image of images) {
      const { lab } = test;
      await expectEqualImages(lab.imagePath("source", image), lab.imagePath("dest", image));
      // Already now nobody may take it for a disk: this agent could die before it hears.
      await expect.poll(() => existsSync(`${lab.imagePath("source", image)}.vmferry`)).toBe(true);
    }
    test.proxy.restore();
    return expectArrives(guest, id);
  };

  describe.each(["bitmap", "bloom"] as const)("tracked by %s", (tracker) => {
    it.each(["mirror", "iterate"] as const)(
      "with 500 records a second written meanwhile: %s",
      async (writes) => {
        const image = await makeDisk(GIB, 0.25);
        const guest = await test.boot({
          workload: { diskrate: "500", diskthreads: "2" },
          disks: [{ id: "disk0", image }],
        });
        const before = guest.source.latestReport!.diskWrites;
        const migration = await moveComparing(guest, [image], {
          limits: LINK,
          disk: { tracker, writes },
        });
        await expectEqualDigests(guest, migration, ["disk0"]);
        expect(guest.source.latestReport!.diskWrites - before).toBeGreaterThan(250);
        const [disk] = migration.disks;
        expect(disk).toMatchObject({ id: "disk0", mode: "copy", totalBytes: GIB });
        expect(disk!.copiedBytes).toBeGreaterThan(0.25 * GIB);
        expect(disk!.zeroBytes).toBeGreaterThan(GIB / 2);
        if (writes === "mirror") expect(disk!.mirroredBytes).toBeGreaterThan(0);
        else expect(disk!.mirroredBytes).toBe(0);
        expect(migration.phases.map(({ phase }) => phase)).toContain("disk-copy");
        // One limit for disks and memory together.
        const { wireBytes, totalMs } = migration.result!;
        expect((wireBytes! / totalMs!) * 1000).toBeLessThan(LINK.bandwidthBytesPerSecond * 1.1);
        expect((await guest.atDest()).disks).toMatchObject([{ id: "disk0", sizeBytes: GIB }]);
      },
    );
  });

  it("written as fast as it goes, 4 to 256 KiB at once, with flushes and trims", async () => {
    const image = await makeDisk(GIB, 0.25);
    const guest = await test.boot({
      workload: { diskrate: "max", diskbytes: "4K-256K", diskthreads: "4", disktrim: "10" },
      disks: [{ id: "disk0", image }],
    });
    const migration = await moveComparing(guest, [image], { limits: LINK });
    await expectEqualDigests(guest, migration, ["disk0"]);
    expect(guest.source.latestReport!.diskTrims).toBeGreaterThan(0);
  });

  it("several at once, each of its own size, to its last odd sector", async () => {
    const sizes = [64 * MIB, 100 * MIB + 512, 8 * MIB + 4096];
    const images = await Promise.all(sizes.map((bytes) => makeDisk(bytes, 0.5)));
    const guest = await test.boot({
      workload: { diskrate: "200" },
      disks: images.map((image, index) => ({ id: `disk${index}`, image })),
    });
    const migration = await moveComparing(guest, images, {});
    await expectEqualDigests(guest, migration, ["disk0", "disk1", "disk2"]);
    for (const [index, image] of images.entries()) {
      const { size } = await stat(test.lab.imagePath("dest", image));
      expect(size).toBe(sizes[index]);
    }
  });

  it("and the holes in them take no space at the destination, nor on the link", async () => {
    const image = await makeDisk(4 * GIB, 0.01);
    const guest = await test.boot({ disks: [{ id: "disk0", image }] });
    const migration = await moveComparing(guest, [image], {});
    const { blocks } = await stat(test.lab.imagePath("dest", image));
    expect(blocks * 512).toBeLessThan(0.02 * 4 * GIB);
    expect(migration.disks[0]!.copiedBytes).toBeLessThan(0.02 * 4 * GIB);
  });

  it("a qcow2 image as well, by QEMU's own mirror: it arrives as a raw one", async () => {
    const raw = await makeDisk(256 * MIB, 0.5);
    const [image, arrived] = ["system.qcow2", "system.raw"];
    const path = test.lab.imagePath("source", image);
    await convertToQcow2(test.lab.imagePath("source", raw), path);
    const guest = await test.boot({
      workload: { diskrate: "500", diskthreads: "2" },
      disks: [{ id: "disk0", image, format: "qcow2" }],
    });
    const held = test.proxy.hold(controlOf("token"));
    const id = await guest.migrate({ limits: LINK });
    await held;
    const formats = ["qcow2", "raw"] as const;
    await expectEqualImages(path, test.lab.imagePath("dest", arrived), formats);
    test.proxy.restore();
    const migration = await expectArrives(guest, id);
    await expectEqualDigests(guest, migration, ["disk0"]);
    expect((await guest.atDest()).disks).toMatchObject([{ image: arrived, format: "raw" }]);
  });

  // Loop devices are for root alone; in CI it is root.
  it.runIf(process.getuid?.() === 0)("a block device onto a block device", async () => {
    const images = await Promise.all(
      (["source", "dest"] as const).map(async (side) => {
        const backing = join(test.lab.directory, `${side}.backing`);
        // What the destination's device held before must not shine through.
        await writeDiskImage(backing, 128 * MIB, { fill: 1, seed: side === "source" ? 5 : 6 });
        return attachLoopDevice(backing, test.lab.imagePath(side, "device"));
      }),
    );
    try {
      await run("blkdiscard", ["-o", `${32 * MIB}`, "-l", `${64 * MIB}`, images[0]!.device]);
      const guest = await test.boot({
        workload: { diskrate: "300", disktrim: "10" },
        disks: [{ id: "disk0", image: "device" }],
      });
      const migration = await moveComparing(guest, ["device"], { limits: LINK });
      await expectEqualDigests(guest, migration, ["disk0"]);
      await guest.end();
    } finally {
      for (const image of images) await image.detach();
    }
  });

  it("a scratch disk begins anew, empty and of the same size", async () => {
    const image = await makeDisk(32 * MIB, 1);
    const guest = await test.boot({ disks: [{ id: "tmp", image, mode: "scratch" }] });
    const id = await guest.migrate();
    const migration = await expectArrives(guest, id);
    expect(migration.disks).toMatchObject([{ id: "tmp", mode: "scratch", copiedBytes: 0 }]);
    expect(migration.result!.diskDigests).toEqual({});
    const { size, blocks } = await stat(test.lab.imagePath("dest", image));
    expect([size, blocks]).toEqual([32 * MIB, 0]);
  });

  it("and what it leaves behind is no disk to start it from, while the new image is an ordinary one", async () => {
    const image = await makeDisk(32 * MIB, 0.5);
    const guest = await test.boot({ disks: [{ id: "disk0", image }] });
    await expectArrives(guest, await guest.migrate());
    expect(existsSync(test.lab.imagePath("source", image))).toBe(true);
    expect(existsSync(`${test.lab.imagePath("dest", image)}.vmferry`)).toBe(false);
    const again = test.boot({ disks: [{ id: "disk0", image }] });
    await expect(again).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.code === "image-handed-off",
    );
  });
});

describe("a guest on shared storage", () => {
  const test = useProxiedLab({ sharedImages: true });

  it("keeps its disk: nothing is copied, and the destination goes on with the same file", async () => {
    await test.lab.makeDisk("shared.raw", 64 * MIB, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "300" },
      disks: [{ id: "disk0", image: "shared.raw", mode: "shared" }],
    });
    const migration = await expectArrives(guest, await guest.migrate());
    expect(migration.disks).toMatchObject([{ id: "disk0", mode: "shared", copiedBytes: 0 }]);
    expect(migration.phases.map(({ phase }) => phase)).not.toContain("disk-copy");
    const again = test.boot({ disks: [{ id: "disk0", image: "shared.raw", mode: "shared" }] });
    // QEMU's own lock: the guest at the destination has it now.
    await expect(again).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.code === "guest-start-failed",
    );
  });
});

import { execFileSync } from "node:child_process";
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import { copyFile, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ApiProblem, controlOf } from "@vmferry/testkit";
import { processState } from "../failpoints/process-state.ts";
import { convertToQcow2, expectNoImage, expectSwapUndone } from "../expect-disks.ts";
import { expectDestSays, expectKept, expectMoves, expectWorksAtSource } from "../expect-guest.ts";
import { attachLoopDevice } from "../loop-device.ts";
import type { MoveOptions, MovingGuest } from "../moving-guest.ts";
import { blockNodesOf, resetGuest, writeProbedQemu } from "../probed-qemu.ts";
import { useProxiedLab, type ProxiedTestLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
/** Some 128 MiB at 16 MiB a second or so: the disk takes several seconds. */
const LONG_DISK_COPY: MoveOptions = { limits: { bandwidthBytesPerSecond: 16 * MIB } };
const GONE_MS_MAX = 20_000;
const IMAGE_ERROR_SOURCE = fileURLToPath(new URL("image-error.c", import.meta.url));

/** A directory for what belongs to the tests of one suite, and QEMUs that can be looked into. */
const directory = await mkdtemp(join(tmpdir(), "vmferry-disk-faults-"));
const qemu = await writeProbedQemu(directory);
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

let disks = 0;

/** A guest that writes to its disk, some way through the copy of it. */
async function inDiskCopy(
  test: ProxiedTestLab,
  options: MoveOptions = LONG_DISK_COPY,
): Promise<{ readonly guest: MovingGuest; readonly id: string; readonly image: string }> {
  const image = `fault${++disks}.raw`;
  await test.lab.makeDisk(image, 256 * MIB, { fill: 0.5 });
  const guest = await test.boot({
    // What was written meanwhile is verified again and again, and several times as fast.
    workload: { diskrate: "500", diskthreads: "2", disksweep: "8" },
    disks: [{ id: "disk0", image }],
  });
  const id = await guest.migrate(options);
  await guest.until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > 16 * MIB);
  expect((await guest.atSource()).state).toBe("running");
  return { guest, id, image };
}

/** The guest works on with its own disk, nothing of the attempt is left, and the next one succeeds. */
async function expectRecovered(
  test: ProxiedTestLab,
  guest: MovingGuest,
  image: string,
): Promise<void> {
  await expectSwapUndone(guest, directory, "disk0");
  await expect
    .poll(() => existsSync(test.lab.imagePath("dest", image)), { timeout: GONE_MS_MAX })
    .toBe(false);
  expectNoImage(test.lab.imagePath("dest", image));
  await expectMoves(guest);
}

describe("when a migration ends while a disk is copied", () => {
  const test = useProxiedLab({ source: { environment: { VMFERRY_QEMU: qemu } } });

  it("by a cancel", async () => {
    const { guest, id, image } = await inDiskCopy(test);
    const sinceMs = performance.now();
    await test.lab.source.api.cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "disk-copy", sinceMs });
    await expectDestSays(guest, id, "cancelled");
    await expectRecovered(test, guest, image);
  });

  it("by its time limit", async () => {
    const { guest, id, image } = await inDiskCopy(test, {
      limits: { bandwidthBytesPerSecond: 16 * MIB, totalMsMax: 4000 },
    });
    await expectKept(guest, id, { code: "time-limit", during: "disk-copy" });
    await expectRecovered(test, guest, image);
  });

  it("when it was handed over already, and the destination gives it back", async () => {
    const image = `fault${++disks}.raw`;
    await test.lab.makeDisk(image, 64 * MIB, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "300" },
      disks: [{ id: "disk0", image }],
    });
    const mark = `${test.lab.imagePath("source", image)}.vmferry`;
    const held = test.proxy.hold(controlOf("token"));
    const id = await guest.migrate();
    await held;
    await expect.poll(() => existsSync(mark)).toBe(true);
    const [pid] = guest.qemus("dest");
    process.kill(pid!, "SIGKILL");
    await test.lab.dest.api.wait(id, 30_000);
    test.proxy.restore();
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "dest-qemu-died" } });
    expect(existsSync(mark)).toBe(false);
    await expectWorksAtSource(guest, performance.now());
    await expectRecovered(test, guest, image);
  });

  it.runIf(process.getuid?.() === 0)(
    "by a cancel: a block device that is filled in part is no disk to start a guest from",
    async () => {
      const backing = join(directory, "device.backing");
      await writeFile(backing, "");
      await truncate(backing, 256 * MIB);
      const device = await attachLoopDevice(backing, test.lab.imagePath("dest", "device.raw"));
      try {
        await test.lab.makeDisk("device.raw", 256 * MIB, { fill: 0.5 });
        const guest = await test.boot({ disks: [{ id: "disk0", image: "device.raw" }] });
        const id = await guest.migrate(LONG_DISK_COPY);
        await guest.until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > 16 * MIB);
        await test.lab.source.api.cancel(id);
        await expectKept(guest, id, { code: "cancelled", during: "disk-copy" });
        const started = test.lab.dest.api.startGuest({
          name: "hasty",
          machine: "pc-q35-10.0",
          vcpus: 1,
          memoryBytes: 128 * MIB,
          boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "" },
          disks: [{ id: "disk0", image: "device.raw" }],
        });
        await expect(started).rejects.toSatisfy(
          (error) => error instanceof ApiProblem && error.code === "image-incomplete",
        );
        await expectMoves(guest);
        await guest.end();
      } finally {
        await device.detach();
      }
    },
  );

  it("by a cancel while memory travels and the disk follows", async () => {
    const { guest, id, image } = await inDiskCopy(test, {
      limits: { bandwidthBytesPerSecond: 32 * MIB, downtimeMsMax: 50 },
    });
    await guest.inPhase(id, "pre-copy");
    const sinceMs = performance.now();
    await test.lab.source.api.cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "pre-copy", sinceMs });
    await expectRecovered(test, guest, image);
  });

  it("by a frame that was damaged on its way", async () => {
    const { guest, id, image } = await inDiskCopy(test);
    const sinceMs = performance.now();
    const damaged = test.proxy.corrupt(
      ({ channel, payloadBytes }) => channel === "bulk" && payloadBytes > 4096,
      1000,
    );
    await damaged;
    await expectKept(guest, id, { code: "frame-corrupt", during: "disk-copy", sinceMs });
    await expectRecovered(test, guest, image);
  });

  it("by the death of the dest agent, whose successor leaves nothing of the image", async () => {
    const { guest, id, image } = await inDiskCopy(test);
    const sinceMs = performance.now();
    await test.lab.dest.kill();
    // What a dead agent left is told from a disk by its mark.
    expect(existsSync(`${test.lab.imagePath("dest", image)}.vmferry`)).toBe(true);
    await test.lab.startDest();
    await expectWorksAtSourceAfter(guest, id, sinceMs);
    await expectRecovered(test, guest, image);
  });

  it("by the death of the source agent: the guest waits for its successor, and then works on", async () => {
    const { guest, image } = await inDiskCopy(test);
    await test.lab.source.kill();
    await test.lab.startSource();
    // Where its socket was lost, too, QEMU looks again after 1, 2, 4, 8, 16 seconds.
    const before = guest.source.latestReport!;
    await guest.source.waitFor(
      ({ latestReport }) => latestReport!.diskWrites > before.diskWrites + 100,
      { timeoutMs: 60_000 },
    );
    expect(guest.source.errors).toEqual([]);
    await expectSwapUndone(guest, directory, "disk0");
    await expect
      .poll(() => existsSync(test.lab.imagePath("dest", image)), { timeout: GONE_MS_MAX })
      .toBe(false);
    await expectMoves(guest);
  });

  it("by a cancel while QEMU mirrors a qcow2 image: the mirror is gone", async () => {
    const image = `fault${++disks}.qcow2`;
    const raw = await test.lab.makeDisk(`fault${disks}.raw`, 256 * MIB, { fill: 0.5 });
    await convertToQcow2(raw, test.lab.imagePath("source", image));
    const guest = await test.boot({
      workload: { diskrate: "500" },
      disks: [{ id: "disk0", image, format: "qcow2" }],
    });
    const id = await guest.migrate(LONG_DISK_COPY);
    await guest.until(id, ({ disks: [disk] }) => (disk?.mirroredBytes ?? 0) > MIB);
    const sinceMs = performance.now();
    await test.lab.source.api.cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "disk-copy", sinceMs });
    const { pid } = await guest.atSource();
    const nodes = await blockNodesOf(directory, pid ?? 0);
    expect(nodes.map(({ nodeName }) => nodeName)).not.toContain("disk0-nbd");
    await expectMoves(guest);
  });

  it("not by a reset of the guest, which takes its disk along", async () => {
    const { guest, id } = await inDiskCopy(test);
    await resetGuest(directory, (await guest.atSource()).pid!);
    const migration = await test.lab.source.api.wait(id, 90_000);
    expect(migration.error).toBe(null);
    expect(migration.phase).toBe("completed");
    const dest = test.lab.follow(test.lab.destSerialLog(guest.name));
    await dest.waitFor(({ latestReport }) => (latestReport?.diskWrites ?? 0) > 100, {
      timeoutMs: 60_000,
    });
    expect(dest.errors).toEqual([]);
  });

  async function expectWorksAtSourceAfter(
    guest: MovingGuest,
    id: string,
    sinceMs: number,
  ): Promise<void> {
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "peer-lost" } });
    await expectWorksAtSource(guest, sinceMs);
  }
});

describe("when an image fails", () => {
  const library = join(directory, "image-error.so");
  const readFlag = join(directory, "fail-reads");
  const flushFlag = join(directory, "fail-flushes");
  beforeAll(() => {
    execFileSync("gcc", ["-shared", "-fPIC", "-O2", "-o", library, IMAGE_ERROR_SOURCE, "-ldl"]);
  });
  afterEach(async () => {
    await rm(readFlag, { force: true });
    await rm(flushFlag, { force: true });
  });
  const test = useProxiedLab({
    source: {
      environment: {
        VMFERRY_QEMU: qemu,
        LD_PRELOAD: library,
        FAULT_FILES: ".raw",
        FAULT_READ_FLAG: readFlag,
        FAULT_FLUSH_FLAG: flushFlag,
      },
    },
  });

  it("to be read at the source: the migration ends and says where, the guest works on", async () => {
    const { guest, id, image } = await inDiskCopy(test);
    const sinceMs = performance.now();
    await writeFile(readFlag, "");
    const migration = await test.lab.source.api.wait(id, 30_000);
    await rm(readFlag);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "source-disk-failed" } });
    expect(migration.error!.detail).toMatch(/disk0.*\d/);
    await expectKept(guest, id, { code: "source-disk-failed", during: "disk-copy", sinceMs });
    await expectDestSays(guest, id, "source-disk-failed");
    await expectRecovered(test, guest, image);
  });

  it("to be flushed at the source: the guest gets its disk back, but stays stopped", async () => {
    const { guest, id, image } = await inDiskCopy(test);
    await writeFile(flushFlag, "");
    const migration = await test.lab.source.api.wait(id, 30_000);
    // It would succeed from now on, and say that what was lost is there.
    await rm(flushFlag);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "source-disk-failed" } });
    expect(migration.phases.at(-2)?.phase).toBe("disk-copy");
    expect(migration.error!.detail).toMatch(/disk0 failed.*start it anew/);
    await expectSwapUndone(guest, directory, "disk0");
    expect(await guest.atSource()).toMatchObject({ state: "paused" });
    expectNoImage(test.lab.imagePath("dest", image));
  });

  it("to be flushed by QEMU at the switch-over: no later agent starts the guest", async () => {
    const image = `fault${++disks}.raw`;
    await test.lab.makeDisk(image, 64 * MIB, { fill: 0.5 });
    let pid: number | null = null;
    await test.lab.source.kill();
    // The guest runs again by then, and nobody has stopped it yet.
    await test.lab.startSource({
      environment: { VMFERRY_FAILPOINTS: "journal.kept.before=kill" },
      onSpawn: (spawned) => {
        pid = spawned.pid;
      },
    });
    // It flushes after 32 records alone, which is not before it is to go.
    const guest = await test.boot({
      workload: { diskrate: "1" },
      disks: [{ id: "disk0", image }],
    });
    await guest.source.waitFor(({ latestReport }) => (latestReport?.diskWrites ?? 0) > 1, {
      timeoutMs: 30_000,
    });
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 32 * MIB } });
    await guest.until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > 0);
    await writeFile(flushFlag, "");
    await expect.poll(() => processState(pid!), { timeout: 60_000 }).toBe("gone");
    // It would succeed from now on, and say that what was lost is there.
    await rm(flushFlag);
    await test.lab.startSource();
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "source-disk-failed" } });
    expect(migration.error!.detail).toContain("start it anew");
    await expectSwapUndone(guest, directory, "disk0");
    expect(await guest.atSource()).toMatchObject({ state: "paused" });

    await test.lab.source.kill();
    await test.lab.startSource();
    expect(await guest.atSource()).toMatchObject({ state: "paused" });
  });
});

// Mounting is for root alone; in CI it is root.
describe.runIf(process.getuid?.() === 0)("when the destination has no space", () => {
  const test = useProxiedLab({ source: { environment: { VMFERRY_QEMU: qemu } } });
  beforeAll(async () => {
    const images = test.lab.imagePath("dest");
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=192m", "tmpfs", images]);
    for (const file of ["vmlinuz", "initrd.img"]) {
      await copyFile(test.lab.imagePath("source", file), join(images, file));
    }
  });
  afterAll(() => {
    execFileSync("umount", ["--lazy", test.lab.imagePath("dest")]);
  });

  it("from the start: it refuses before anything is copied", async () => {
    await test.lab.makeDisk("large.raw", 256 * MIB, { fill: 1 });
    const guest = await test.boot({ disks: [{ id: "disk0", image: "large.raw" }] });
    const refused = guest.migrate();
    await expect(refused).rejects.toMatchObject({
      detail: { code: "preflight-failed", problem: { errors: [{ field: "dest-space" }] } },
    });
    const sinceMs = performance.now();
    const id = await guest.migrate({ allowUnsafe: ["dest-space"] });
    const migration = await expectKept(guest, id, {
      code: "dest-disk-full",
      during: "preparing",
      sinceMs,
    });
    expect(migration.error!.detail).toMatch(/disk0.*\d+ bytes/);
    expectNoImage(test.lab.imagePath("dest", "large.raw"));
  });

  it("left on the way, because others took it: the migration ends, nothing stays", async () => {
    await test.lab.makeDisk("growing.raw", 1024 * MIB, { fill: 0.08 });
    const guest = await test.boot({
      workload: { diskrate: "500", diskthreads: "2" },
      disks: [{ id: "disk0", image: "growing.raw" }],
    });
    const id = await guest.migrate(LONG_DISK_COPY);
    await guest.until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > 16 * MIB);
    const sinceMs = performance.now();
    const others = test.lab.imagePath("dest", "others");
    fillUp(others);
    const migration = await test.lab.source.api.wait(id, 90_000);
    await rm(others);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "dest-disk-full" } });
    await expectWorksAtSource(guest, sinceMs);
    await expectSwapUndone(guest, directory, "disk0");
    expectNoImage(test.lab.imagePath("dest", "growing.raw"));
  });
});

/** Writes to the file until its file system has no room. */
function fillUp(path: string): void {
  const file = openSync(path, "w");
  const data = Buffer.alloc(MIB, 1);
  try {
    for (;;) writeSync(file, data);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  } finally {
    closeSync(file);
  }
}

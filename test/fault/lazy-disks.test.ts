import { existsSync } from "node:fs";
import { mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { ApiProblem, socketHoldersUnder, type SpawnedAgent } from "@vmferry/testkit";
import { expectNoImage } from "../expect-disks.ts";
import { expectKept } from "../expect-guest.ts";
import { expectWholeDisk, type FollowingDisk } from "../expect-whole-disk.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { writeProbedQemu } from "../probed-qemu.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 512 * MIB;
/** The disk takes this link some 15 seconds. */
const LIMITS = { bandwidthBytesPerSecond: 16 * MIB };
const WORKLOAD = { mem: "32M", rate: "500", diskrate: "100", disksweep: "8" };
const LAZY = { disk: { handover: "lazy" } };
/** A QEMU that was refused has looked after 0, 1, 3 and 7 seconds, and looks again after 15. */
const AWAY_MS = 8000;
/** Until the next agent says that it serves the disk. */
const START_MS_MAX = 20_000;
/**
 * From when the agent serves the disk again. The source, which may have to bring what is written to,
 * dials within 1.5 s, and the guest reports twice a second.
 */
const SERVED_MS_MAX = 3000;

const directory = await mkdtemp(join(tmpdir(), "vmferry-probe-"));
const qemu = await writeProbedQemu(directory);

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe("a disk that follows its guest", () => {
  const test = useProxiedLab({ dest: { flags: ["--qemu", qemu] } });
  let disks = 0;
  afterEach(async () => {
    // A test that failed half-way leaves its agent dead.
    if (!(await test.lab.dest.api.guests().catch(() => null))) await test.lab.startDest();
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
  });

  const boot = async (): Promise<{ guest: MovingGuest; image: string }> => {
    const image = `lazy${++disks}.raw`;
    await test.lab.makeDisk(image, DISK_BYTES, { fill: 0.5 });
    const guest = await test.boot({
      memoryMib: 160,
      workload: WORKLOAD,
      disks: [{ id: "disk0", image }],
    });
    return { guest, image };
  };

  /** A guest that runs at the dest already, and whose disk is at the source for the most part. */
  const following = async (
    options: Readonly<Record<string, unknown>> = {},
  ): Promise<FollowingDisk> => {
    const { guest, image } = await boot();
    const id = await guest.migrate({ ...LAZY, limits: LIMITS, ...options });
    await guest.inPhase(id, "post-copy");
    const [disk] = (await test.lab.source.api.migration(id)).disks;
    expect(disk!.remainingBytes).toBeGreaterThan(DISK_BYTES / 2);
    return { guest, image, id };
  };

  /** What was to be seen on the way has been: the rest comes as fast as it can. */
  const expectWholeNow = async (arrived: FollowingDisk): Promise<MigrationObject> => {
    await arrived.guest.limitBandwidth(arrived.id, null);
    return expectWholeDisk(arrived, directory);
  };

  it("is at the source when the guest runs, and whole when the migration is completed", async () => {
    const arrived = await following();
    const migration = await expectWholeNow(arrived);
    expect(migration.phases.map(({ phase }) => phase)).not.toContain("disk-copy");
  });

  it("comes together with memory that follows, too", async () => {
    const arrived = await following({ mode: "post-copy" });
    await expectWholeNow(arrived);
  });

  it("keeps its guest from another migration until it is whole", async () => {
    const arrived = await following();
    await expect(arrived.guest.migrate()).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.detail.status === 409,
    );
    await expectWholeNow(arrived);
  });

  it("comes over a link that is made anew", async () => {
    const arrived = await following();
    for (let round = 1; round <= 2; round++) {
      test.proxy.cut();
      await pause(300 * round);
      test.proxy.restore();
      await pause(1000);
    }
    const migration = await expectWholeNow(arrived);
    expect(migration.wire.reconnects).toBeGreaterThanOrEqual(1);
  });

  it("goes on when the dest's agent was killed", async () => {
    const arrived = await following();
    await test.lab.dest.kill();
    await pause(500);
    await test.lab.startDest();
    await expectWholeNow(arrived);
  });

  it("comes to an agent that could not open it when it started", async () => {
    const { lab } = test;
    const arrived = await following();
    const map = `${lab.imagePath("dest", arrived.image)}.vmferry-present`;
    await lab.dest.kill();
    await rename(map, `${map}.away`);
    await lab.startDest();
    const shown = async (): Promise<MigrationObject> => lab.dest.api.migration(arrived.id);
    await expect.poll(shown, { timeout: 10_000 }).toMatchObject({
      phase: "in-doubt",
      error: { detail: expect.stringMatching(/tried again.*present map is gone/) as string },
    });
    await pause(5000);
    expect((await shown()).phase).toBe("in-doubt");
    await rename(`${map}.away`, map);
    await expect.poll(async () => (await shown()).phase, { timeout: 20_000 }).toBe("post-copy");
    await expectWholeNow(arrived);
  });

  it("answers with the next agent of the dest, and not when QEMU would look again", async () => {
    const { lab } = test;
    const holders = (): readonly number[] => socketHoldersUnder(join(lab.directory, "d"));
    const arrived = await following();
    const console = lab.follow(lab.destSerialLog(arrived.guest.name));
    const writesMore = async (timeoutMs: number): Promise<void> => {
      const before = console.latestReport?.diskWrites ?? 0;
      await console.waitFor(({ latestReport }) => (latestReport?.diskWrites ?? 0) > before + 20, {
        timeoutMs,
      });
    };
    await writesMore(START_MS_MAX);
    expect(holders()).toHaveLength(1);
    await lab.dest.kill();
    await pause(AWAY_MS);
    let next: SpawnedAgent | null = null;
    const onSpawn = (spawned: SpawnedAgent): void => {
      next = spawned;
    };
    const started = lab.startDest({ onSpawn });
    const log = (): string => next?.logText() ?? "";
    await expect.poll(log, { timeout: START_MS_MAX }).toContain("are served again");
    await writesMore(SERVED_MS_MAX);
    await started;
    await expectWholeNow(arrived);
    await expect.poll(holders).toEqual([]);
  });

  it("goes on when the source's agent was killed", async () => {
    const arrived = await following();
    await test.lab.source.kill();
    await pause(500);
    await test.lab.startSource();
    await expectWholeDisk(arrived, directory);
  });

  it("stays with a guest whose migration is cancelled before", async () => {
    const { guest, image } = await boot();
    const id = await guest.migrate({ ...LAZY, limits: { bandwidthBytesPerSecond: 4 * MIB } });
    await guest.inPhase(id, "pre-copy");
    await test.lab.source.api.cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "pre-copy" });
    const path = test.lab.imagePath("dest", image);
    await expect.poll(() => existsSync(path), { timeout: 10_000 }).toBe(false);
    expectNoImage(path);
    expect(existsSync(`${path}.vmferry-present`)).toBe(false);
  });
});

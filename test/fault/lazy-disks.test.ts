import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { ApiProblem } from "@vmferry/testkit";
import { expectNoImage } from "../expect-disks.ts";
import { expectKept } from "../expect-guest.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { blockNodesOf, writeProbedQemu } from "../probed-qemu.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const WAIT_MS = 120_000;
const DISK_BYTES = 512 * MIB;
/** The disk takes this link some 15 seconds. */
const LIMITS = { bandwidthBytesPerSecond: 16 * MIB };
const WORKLOAD = { mem: "32M", rate: "500", diskrate: "100", disksweep: "8" };
const LAZY = { disk: { handover: "lazy" } };

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
  ): Promise<{ guest: MovingGuest; image: string; id: string }> => {
    const { guest, image } = await boot();
    const id = await guest.migrate({ ...LAZY, limits: LIMITS, ...options });
    await guest.inPhase(id, "post-copy");
    const [disk] = (await test.lab.source.api.migration(id)).disks;
    expect(disk!.remainingBytes).toBeGreaterThan(DISK_BYTES / 2);
    return { guest, image, id };
  };

  const expectWhole = async (
    { guest, image }: { guest: MovingGuest; image: string },
    id: string,
  ): Promise<MigrationObject> => {
    const migration = await test.lab.source.api.wait(id, WAIT_MS);
    expect(migration).toMatchObject({ phase: "completed", error: null });
    expect(migration.disks).toMatchObject([{ id: "disk0", remainingBytes: 0 }]);
    const atDest = await test.lab.dest.api.wait(id, WAIT_MS);
    expect(atDest).toMatchObject({ phase: "completed", error: null });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    const object = await guest.atDest();
    expect(object).toMatchObject({ state: "running" });
    await expect.poll(() => guest.qemus("source"), { timeout: 10_000 }).toEqual([]);
    // Nothing of the agent is in the way, and nothing of the migration beside the image.
    const path = test.lab.imagePath("dest", image);
    const nodes = await blockNodesOf(directory, object.pid ?? 0);
    const names = Object.fromEntries(nodes.map(({ nodeName, filename }) => [nodeName, filename]));
    expect(names).toEqual({ disk0: path, "disk0-file": path });
    expect([`${path}.vmferry`, `${path}.vmferry-present`].map(existsSync)).toEqual([false, false]);
    const guestDirectory = join(test.lab.directory, "d", "guests", guest.name);
    expect(existsSync(join(guestDirectory, "lazy-disks.json"))).toBe(false);
    return migration;
  };

  it("is at the source when the guest runs, and whole when the migration is completed", async () => {
    const arrived = await following();
    const migration = await expectWhole(arrived, arrived.id);
    expect(migration.phases.map(({ phase }) => phase)).not.toContain("disk-copy");
  });

  it("comes together with memory that follows, too", async () => {
    const arrived = await following({ mode: "post-copy" });
    await expectWhole(arrived, arrived.id);
  });

  it("keeps its guest from another migration until it is whole", async () => {
    const arrived = await following();
    await expect(arrived.guest.migrate()).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.detail.status === 409,
    );
    await expectWhole(arrived, arrived.id);
  });

  it("comes over a link that is made anew", async () => {
    const arrived = await following();
    for (let round = 1; round <= 2; round++) {
      test.proxy.cut();
      await pause(300 * round);
      test.proxy.restore();
      await pause(1000);
    }
    const migration = await expectWhole(arrived, arrived.id);
    expect(migration.wire.reconnects).toBeGreaterThanOrEqual(1);
  });

  it("goes on when the dest's agent was killed", async () => {
    const arrived = await following();
    await test.lab.dest.kill();
    await pause(500);
    await test.lab.startDest();
    await expectWhole(arrived, arrived.id);
  });

  it("goes on when the source's agent was killed", async () => {
    const arrived = await following();
    await test.lab.source.kill();
    await pause(500);
    await test.lab.startSource();
    await expectWhole(arrived, arrived.id);
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

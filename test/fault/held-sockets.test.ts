import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { socketHoldersUnder, type SpawnedAgent } from "@vmferry/testkit";
import { expectMoves } from "../expect-guest.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const LONG_DISK_COPY = { limits: { bandwidthBytesPerSecond: 16 * MIB } };
/** A QEMU that was refused has looked after 0, 1, 3 and 7 seconds, and looks again after 15. */
const AWAY_MS = 8000;
/** Until the next agent says that it serves the disk. */
const START_MS_MAX = 20_000;
/** From when the agent serves the disk again; the guest reports twice a second. */
const SERVED_MS_MAX = 2000;
/** What a QEMU that was refused may take. */
const LOOKS_AGAIN_MS_MAX = 35_000;

describe("when the source agent dies between a guest and its disk", () => {
  const test = useLab();
  let images = 0;
  const holders = (): readonly number[] => socketHoldersUnder(join(test.lab.directory, "s"));
  afterEach(async () => {
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
  });

  const inDiskCopy = async (): Promise<MovingGuest> => {
    const image = `held${++images}.raw`;
    await test.lab.makeDisk(image, 256 * MIB, { fill: 0.5 });
    const disks = [{ id: "disk0", image }];
    const guest = await test.boot({ workload: { diskrate: "500" }, disks });
    const id = await guest.migrate(LONG_DISK_COPY);
    await guest.until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > 16 * MIB);
    expect(holders()).toHaveLength(1);
    return guest;
  };

  const writesAgain = async (guest: MovingGuest, timeoutMs: number): Promise<void> => {
    const before = guest.source.latestReport!.diskWrites;
    await guest.source.waitFor(({ latestReport }) => latestReport!.diskWrites > before + 20, {
      timeoutMs,
    });
    expect(guest.source.errors).toEqual([]);
  };

  it("its disk answers with the next agent, and not when QEMU would look again", async () => {
    const guest = await inDiskCopy();
    await test.lab.source.kill();
    await sleep(AWAY_MS);
    let next: SpawnedAgent | null = null;
    const onSpawn = (spawned: SpawnedAgent): void => {
      next = spawned;
    };
    const started = test.lab.startSource({ onSpawn });
    const log = (): string => next?.logText() ?? "";
    await expect.poll(log, { timeout: START_MS_MAX }).toContain("the disk lost its agent");
    await writesAgain(guest, SERVED_MS_MAX);
    await started;
    await expect.poll(holders).toEqual([]);
    await expectMoves(guest);
  });

  it("and the holder of its socket dies too, QEMU looks again", async () => {
    const guest = await inDiskCopy();
    await test.lab.source.kill();
    for (const pid of holders()) process.kill(pid, "SIGKILL");
    await test.lab.startSource();
    await writesAgain(guest, LOOKS_AGAIN_MS_MAX);
    await expectMoves(guest);
  });
});

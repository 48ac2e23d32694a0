import { appendFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { guestPaths } from "@vmferry/qemu";
import type { Lab } from "@vmferry/testkit";
import { expectArrives } from "../expect-guest.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { migrateByPostcopy, RESTLESS_GUEST } from "../restless-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const WAIT_MS = 120_000;
/** What is missing at the hand-over takes this link many seconds. */
const SLOW_BYTES_PER_SECOND = 4 * MIB;

describe("when something breaks while memory follows the guest", () => {
  const test = useProxiedLab();
  afterEach(async () => {
    // A test that failed half-way leaves its agent dead.
    if (!(await test.lab.dest.api.guests().catch(() => null))) await test.lab.startDest();
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
  });

  /** A guest that runs at the dest already, and of which some 40 MiB are still at the source. */
  const inPostcopy = async (): Promise<{ guest: MovingGuest; id: string }> => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrateByPostcopy(guest, SLOW_BYTES_PER_SECOND);
    await guest.inPhase(id, "post-copy");
    return { guest, id };
  };

  const expectWhole = async (guest: MovingGuest, id: string): Promise<void> => {
    const migration = await test.lab.source.api.wait(id, WAIT_MS);
    expect(migration).toMatchObject({ phase: "completed", error: null });
    expect(await test.lab.dest.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    expect(await guest.atDest()).toMatchObject({ state: "running" });
    await expect.poll(() => guest.qemus("source"), { timeout: 10_000 }).toEqual([]);
  };

  const reconnects = async (id: string, count: number): Promise<MigrationObject> => {
    const migration = await test.lab.source.api.migration(id);
    expect(migration.phase).toBe("post-copy");
    if (migration.wire.reconnects >= count) return migration;
    await pause(50);
    return reconnects(id, count);
  };

  it("the link: it is made anew as often as it takes, and nothing is lost", async () => {
    const { guest, id } = await inPostcopy();
    for (let round = 1; round <= 3; round++) {
      test.proxy.cut();
      await pause(200 * round);
      test.proxy.restore();
      await reconnects(id, round);
    }
    await guest.limitBandwidth(id, null);
    const migration = await expectArrives(guest, id);
    expect(migration.wire.reconnects).toBeGreaterThanOrEqual(3);
  });

  it("the source's QEMU: nothing of the guest is in it any more", async () => {
    const { guest, id } = await inPostcopy();
    const [pid] = guest.qemus("source");
    process.kill(pid!, "SIGKILL");
    await guest.limitBandwidth(id, null);
    await expectWhole(guest, id);
  });

  it("the source agent: the next one serves from what the killed one has stored", async () => {
    const { guest, id } = await inPostcopy();
    await test.lab.source.kill();
    await test.lab.startSource();
    await expectWhole(guest, id);
  });

  it("the dest's QEMU, which lets go of the stream: the same agent takes it up each time", async () => {
    const { guest, id } = await inPostcopy();
    for (let time = 1; time <= 2; time++) {
      await pauseArrival(test.lab, guest);
      const takenUp = (): number => timesTakenUp(test.lab, guest);
      await expect.poll(takenUp, { timeout: WAIT_MS }).toBe(time);
    }
    expect(await test.lab.dest.api.migration(id)).toMatchObject({ phase: "post-copy" });
    await expectWhole(guest, id);
  });

  it("the dest's QEMU, which cannot listen where it is told to: in doubt until it can", async () => {
    const { guest, id } = await inPostcopy();
    const { dest, directory } = test.lab;
    const sockets = join(directory, "d", "run");
    await rename(sockets, `${sockets}.away`);
    try {
      await pauseArrival(test.lab, guest);
      const isInDoubt = async (): Promise<string> => (await dest.api.migration(id)).phase;
      await expect.poll(isInDoubt, { timeout: WAIT_MS }).toBe("in-doubt");
      const { error } = await dest.api.migration(id);
      expect(error?.detail).toContain("its QEMU is not given the memory that it lacks");
      expect(error?.detail).toContain("Failed to bind socket");
      expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "post-copy" });
    } finally {
      await rename(`${sockets}.away`, sockets);
    }
    await guest.limitBandwidth(id, null);
    await expectWhole(guest, id);
    expect(timesTakenUp(test.lab, guest)).toBe(1);
    const { phases } = await dest.api.migration(id);
    expect(phases.map(({ phase }) => phase).slice(-4)).toEqual([
      ...["in-doubt", "post-copy", "completing", "completed"],
    ]);
  });

  it("the dest agent: the next one takes the guest's QEMU up and fetches the rest", async () => {
    const { guest, id } = await inPostcopy();
    await test.lab.dest.kill();
    await test.lab.startDest();
    await guest.limitBandwidth(id, null);
    await expectWhole(guest, id);
  });

  it("both agents, one after the other", async () => {
    const { guest, id } = await inPostcopy();
    await test.lab.dest.kill();
    await test.lab.source.kill();
    await test.lab.startSource();
    await test.lab.startDest();
    await expectWhole(guest, id);
  });
});

/** As a person does it. QEMU has one more monitor, of which others than the agent may be users. */
async function pauseArrival({ directory }: Lab, { name }: MovingGuest): Promise<void> {
  const { standby } = guestPaths(join(directory, "d", "guests", name));
  await appendFile(`${standby}.in`, '{"exec-oob":"migrate-pause","id":"a person"}\n');
}

function timesTakenUp({ dest }: Lab, { name }: MovingGuest): number {
  const lines = dest.log.filter(({ guest }) => guest === name);
  return lines.filter(({ msg }) => String(msg).includes("is taken up")).length;
}

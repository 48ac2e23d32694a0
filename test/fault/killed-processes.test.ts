import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { limits } from "@vmferry/protocol";
import type { SpawnedAgent } from "@vmferry/testkit";
import { processState } from "../failpoints/process-state.ts";
import {
  expectDestSays,
  expectKept,
  expectMoves,
  expectNothingAtDest,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { LONG_PRE_COPY, LONG_STUN } from "../held-open.ts";
import type { MoveOptions, MovingGuest } from "../moving-guest.ts";
import { useLab, type TestLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const LONG_DISK_COPY: MoveOptions = { limits: { bandwidthBytesPerSecond: 4 * MIB } };
/** QEMU looks for an export whose socket it lost after 1, 2, 4, 8 and then every 16 seconds. */
const LOOKS_AGAIN_MS_MAX = 35_000;
/** How long a guest stands still whose dest does not answer, and a moment to roll back. */
const STUNNED_MS_MAX = limits.LINK_LOST_STUNNED_MS_MAX + 1500;

describe("when a process is killed", () => {
  const test = useLab();
  afterEach(async () => {
    // A test that failed half-way leaves its agent dead.
    if (!(await test.lab.dest.api.guests().catch(() => null))) await test.lab.startDest();
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
  });

  /** Kills the guest's QEMU at one of the hosts; the pid is what that agent says. */
  const killQemu = async (guest: MovingGuest, side: "source" | "dest"): Promise<void> => {
    const { pid, state } = await (side === "source" ? guest.atSource() : guest.atDest());
    expect(state).toBe(side === "source" ? "running" : "incoming");
    expect(guest.qemus(side)).toEqual([pid]);
    process.kill(pid!, "SIGKILL");
  };

  const inPrecopy = async (guest: MovingGuest): Promise<string> => {
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.until(id, ({ ram }) => ram.sentBytes > 4 * MIB);
    return id;
  };

  const inStun = async (guest: MovingGuest): Promise<string> => {
    const id = await guest.migrate(LONG_STUN);
    await guest.inPhase(id, "stunned");
    return id;
  };

  it("the source's QEMU in pre-copy: the migration fails, the guest is stopped, its name is free", async () => {
    const guest = await test.boot();
    const id = await inPrecopy(guest);
    await killQemu(guest, "source");
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "source-qemu-died" } });
    await expect
      .poll(() => guest.atSource(), { timeout: 2000 })
      .toMatchObject({ state: "stopped", pid: null });
    await expectNothingAtDest(guest);
    await expectDestSays(guest, id, "source-qemu-died");
    await test.lab.source.api.powerOff(guest.name);
    const guests = await test.lab.source.api.guests();
    expect(guests.filter(({ name }) => name === guest.name)).toEqual([]);
  });

  it("the source's QEMU amid the stun: the migration fails and no guest runs at the dest", async () => {
    const guest = await test.boot();
    const id = await inStun(guest);
    const { pid } = await guest.atSource();
    process.kill(pid!, "SIGKILL");
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "source-qemu-died" } });
    await expect
      .poll(() => guest.atSource(), { timeout: 2000 })
      .toMatchObject({ state: "stopped", pid: null });
    await expectNothingAtDest(guest);
  });

  it("the dest's QEMU in pre-copy: the guest works on at the source", async () => {
    const guest = await test.boot();
    const id = await inPrecopy(guest);
    const sinceMs = performance.now();
    await killQemu(guest, "dest");
    await expectKept(guest, id, { code: "dest-qemu-died", during: "pre-copy", sinceMs });
    await expectDestSays(guest, id, "dest-qemu-died");
    await expectMoves(guest);
  });

  it("the dest's QEMU amid the stun: the guest runs on at the source", async () => {
    const guest = await test.boot();
    const id = await inStun(guest);
    const sinceMs = performance.now();
    await killQemu(guest, "dest");
    await expectKept(guest, id, { code: "dest-qemu-died", during: "stunned", sinceMs });
    await expectDestSays(guest, id, "dest-qemu-died");
    await expectMoves(guest);
  });

  it("the dest agent in pre-copy: the next one knows nothing of the session, and cleans up", async () => {
    const guest = await test.boot();
    const id = await inPrecopy(guest);
    const sinceMs = performance.now();
    await test.lab.dest.kill();
    await test.lab.startDest();
    const migration = await test.lab.source.api.wait(id, 10_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "peer-lost" } });
    await expectWorksAtSource(guest, sinceMs);
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("the dest agent amid the stun: the guest runs on, and the dest agent cleans up when it is back", async () => {
    const guest = await test.boot();
    const id = await inStun(guest);
    const sinceMs = performance.now();
    await test.lab.dest.kill();
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "peer-lost" } });
    await expectWorksAtSource(guest, sinceMs, STUNNED_MS_MAX);
    await test.lab.startDest();
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("the dest agent by SIGTERM in pre-copy: it takes its QEMU along and says so", async () => {
    const guest = await test.boot();
    const id = await inPrecopy(guest);
    const sinceMs = performance.now();
    expect(await test.lab.dest.stop()).toBe(0);
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "agent-stopped" } });
    expect(guest.qemus("dest")).toEqual([]);
    await expectWorksAtSource(guest, sinceMs);
    await test.lab.startDest();
    await expectMoves(guest);
  });

  it("the source agent by SIGTERM in pre-copy: the guest works on and is found by the next agent", async () => {
    const guest = await test.boot();
    const id = await inPrecopy(guest);
    const sinceMs = performance.now();
    expect(await test.lab.source.stop()).toBe(0);
    await expectDestSays(guest, id, "agent-stopped");
    await expectNothingAtDest(guest);
    await test.lab.startSource();
    await expectWorksAtSource(guest, sinceMs);
    await expectMoves(guest);
  });

  it("the source agent in pre-copy: the guest works on and is found by the next agent", async () => {
    const guest = await test.boot();
    await inPrecopy(guest);
    const sinceMs = performance.now();
    await test.lab.source.kill();
    await test.lab.startSource();
    await expectNothingAtDest(guest);
    await expectWorksAtSource(guest, sinceMs);
    await expectMoves(guest);
  });

  it("both agents, after a move: it is listed as it ended, or as its journals know where no more is left", async () => {
    const { lab } = test;
    const atSource = await expectMoves(await test.boot());
    const { id } = atSource;
    const atDest = await lab.dest.api.migration(id);
    const { downtimeMs, totalMs, ramDigest } = atSource.result!;
    expect([downtimeMs, totalMs, ramDigest]).not.toContain(null);
    const restart = async (
      end: "stop" | "kill",
      meanwhile?: () => Promise<void>,
    ): Promise<void> => {
      await Promise.all([lab.source[end](), lab.dest[end]()]);
      await meanwhile?.();
      await lab.startDest();
      await lab.startSource();
    };
    const listed = async (side: "source" | "dest"): Promise<unknown> =>
      (await lab[side].api.migrations()).find((migration) => migration.id === id);
    for (const end of ["stop", "kill"] as const) {
      await restart(end);
      expect(await listed("source")).toEqual(atSource);
      expect(await listed("dest")).toEqual(atDest);
    }
    await restart("kill", async () => {
      for (const state of ["s", "d"]) {
        await rm(join(lab.directory, state, "migrations", `${id}.json`));
      }
    });
    const result = { downtimeMs: null, totalMs: null, wireBytes: null, ramDigest: null };
    for (const side of ["source", "dest"] as const) {
      const left = await lab[side].api.migration(id);
      expect(left).toMatchObject({ phase: "completed", result, mayCancel: false });
      expect(left.phases.map(({ phase }) => phase)).toEqual(["completed"]);
      const endedAtMs = Date.parse(atSource.phases.at(-1)!.at);
      expect(Math.abs(Date.parse(left.phases[0]!.at) - endedAtMs)).toBeLessThan(1000);
    }
  });

  it("the source agent amid the stun: QEMU lets the guest run on by itself", async () => {
    const guest = await test.boot();
    await inStun(guest);
    const sinceMs = performance.now();
    await test.lab.source.kill();
    await test.lab.startSource();
    await expectNothingAtDest(guest);
    await expectWorksAtSource(guest, sinceMs);
    await expectMoves(guest);
  });

  it("the source agent, and its successor while QEMU flushes for it: the third frees both", async () => {
    const image = "twice.raw";
    await test.lab.makeDisk(image, 64 * MIB, { fill: 0.5 });
    const disks = [{ id: "disk0", image }];
    const guest = await test.boot({ workload: { diskrate: "200" }, disks });
    const sinceMs = performance.now();
    const flushOf = (passage: string): Record<string, string> => ({
      VMFERRY_FAILPOINTS: `nbd.flush.before=kill${passage}`,
    });
    await test.lab.source.kill();
    await untilKilled(test, flushOf(""), () => guest.migrate(LONG_DISK_COPY));
    // It answers the guest's own flush, and dies of the one that QEMU makes to let go of its export.
    await untilKilled(test, flushOf("@2"));
    await test.lab.startSource();
    await expect
      .poll(() => guest.atSource(), { timeout: LOOKS_AGAIN_MS_MAX })
      .toMatchObject({ state: "running" });
    await expectWorksAtSource(guest, sinceMs, 2 * LOOKS_AGAIN_MS_MAX);
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("no agent, but the guest's QEMU stands still: it is in doubt and kept until it answers", async () => {
    const guest = await test.boot();
    const { pid } = await guest.atSource();
    await test.lab.source.kill();
    process.kill(pid!, "SIGSTOP");
    const sinceMs = performance.now();
    try {
      await test.lab.startSource();
      expect(await guest.atSource()).toMatchObject({ state: "in-doubt", pid });
      await expect(test.lab.source.api.powerOff(guest.name)).rejects.toMatchObject({
        code: "guest-in-doubt",
      });
    } finally {
      process.kill(pid!, "SIGCONT");
    }
    await expect
      .poll(() => guest.atSource(), { timeout: 15_000 })
      .toMatchObject({ state: "running", pid });
    await expectWorksAtSource(guest, sinceMs, LOOKS_AGAIN_MS_MAX);
    await expectMoves(guest);
  });
});

/** A source agent of which the failpoint makes an end, some time after it was spawned. */
async function untilKilled(
  test: TestLab,
  environment: Readonly<Record<string, string>>,
  begin: () => Promise<unknown> = () => Promise.resolve(),
): Promise<void> {
  let agent: SpawnedAgent | null = null;
  const onSpawn = (spawned: SpawnedAgent): void => {
    agent = spawned;
  };
  // It may be dead before its API answers.
  await test.lab.startSource({ environment, onSpawn }).then(begin, () => undefined);
  await expect.poll(() => processState(agent!.pid), { timeout: LOOKS_AGAIN_MS_MAX }).toBe("gone");
  expect(agent!.logText()).toContain("nbd.flush.before: kill");
}

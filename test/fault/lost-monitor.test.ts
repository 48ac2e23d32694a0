import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { guestPaths } from "@vmferry/qemu";
import { controlOf } from "@vmferry/testkit";
import { cutMonitor } from "../cut-monitor.ts";
import {
  expectArrives,
  expectMoves,
  expectNothingAtDest,
  expectSilentAtSource,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { useHeldQemus } from "../held-qemu.ts";
import { LONG_PRE_COPY, LONG_STUN } from "../held-open.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { migrateByPostcopy, RESTLESS_GUEST } from "../restless-guest.ts";
import { useProxiedLab, type ProxiedTestLab } from "../test-lab.ts";

const WAIT_MS = 60_000;
/** Ten seconds until an agent says so, and then some. */
const IN_DOUBT_MS_MAX = 40_000;
/** How long a guest stands still behind a stun whose QEMU is held for ten seconds. */
const STANDS_STILL_MS_MAX = 40_000;
const MIB = 1024 * 1024;
const SLOW_BYTES_PER_SECOND = 4 * MIB;
const START_ANEW = "start this agent anew";

async function untilToken(test: ProxiedTestLab, guest: MovingGuest): Promise<string> {
  const held = test.proxy.hold(controlOf("token"));
  const id = await guest.migrate();
  await held;
  return id;
}

// Ending another program's connection is for root alone; in CI it is root.
describe.runIf(process.getuid?.() === 0)("when QEMU lives, and its agent's monitor is gone", () => {
  const test = useProxiedLab();
  afterEach(async () => {
    // A test that failed half-way leaves its agent dead.
    if (!(await test.lab.dest.api.guests().catch(() => null))) await test.lab.startDest();
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
  });

  const lose = async (guest: MovingGuest, side: "source" | "dest"): Promise<number> => {
    const state = side === "source" ? "s" : "d";
    const directory = join(test.lab.directory, state, "guests", guest.name);
    const [pid] = guest.qemus(side);
    await cutMonitor(pid!, guestPaths(directory).qmpSocket);
    return pid!;
  };

  it("at the source, which has handed over: it is not needed any more", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await lose(guest, "source");
    await expectSilentAtSource(guest);
    test.proxy.restore();
    await expectArrives(guest, id);
  });

  it("at the dest before TOKEN: it runs nowhere, until that agent is started anew", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    const pid = await lose(guest, "dest");
    test.proxy.restore();
    const isInDoubt = async (): Promise<string> => (await test.lab.dest.api.migration(id)).phase;
    await expect.poll(isInDoubt, { timeout: IN_DOUBT_MS_MAX }).toBe("in-doubt");
    expect((await test.lab.dest.api.migration(id)).error?.detail).toContain(START_ANEW);
    await guest.inPhase(id, "in-doubt", IN_DOUBT_MS_MAX);
    await expectSilentAtSource(guest);
    await test.lab.dest.kill();
    await test.lab.startDest();
    expect(await test.lab.source.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect(await test.lab.dest.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    expect(await guest.atDest()).toMatchObject({ state: "running", pid });
    await expect.poll(() => guest.qemus("source"), { timeout: 10_000 }).toEqual([]);
  });

  it("at the dest while memory follows: all of it comes", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrateByPostcopy(guest, SLOW_BYTES_PER_SECOND);
    await guest.inPhase(id, "post-copy");
    await lose(guest, "dest");
    await guest.limitBandwidth(id, null);
    await expectArrives(guest, id);
  });

  it("at the dest while a disk follows: that stays behind the agent, until the next one begins", async () => {
    const image = "followed.raw";
    await test.lab.makeDisk(image, 64 * MIB, { fill: 0.5 });
    const guest = await test.boot({
      workload: { rate: "500", diskrate: "100" },
      disks: [{ id: "disk0", image }],
    });
    const limits = { bandwidthBytesPerSecond: 8 * MIB };
    const id = await guest.migrate({ disk: { handover: "lazy" }, limits });
    await guest.inPhase(id, "post-copy");
    await lose(guest, "dest");
    await guest.limitBandwidth(id, null);
    const isInDoubt = async (): Promise<string> => (await test.lab.dest.api.migration(id)).phase;
    await expect.poll(isInDoubt, { timeout: WAIT_MS }).toBe("in-doubt");
    const { error, disks } = await test.lab.dest.api.migration(id);
    expect(disks).toMatchObject([{ remainingBytes: 0 }]);
    expect(error?.detail).toContain("a disk of it has come whole");
    expect(error?.detail).toContain(START_ANEW);
    await test.lab.dest.kill();
    await test.lab.startDest();
    expect(await test.lab.source.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect(await test.lab.dest.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
  });

  it.each([
    { phase: "pre-copy", request: LONG_PRE_COPY },
    { phase: "stunned", request: LONG_STUN },
  ] as const)(
    "at the source in $phase: it works on, and the next agent sees that",
    async ({ phase, request }) => {
      const guest = await test.boot();
      const id = await guest.migrate(request);
      await guest.inPhase(id, phase);
      const sinceMs = performance.now();
      const pid = await lose(guest, "source");
      const { error } = await guest.inPhase(id, "in-doubt");
      expect(error?.detail).toContain(START_ANEW);
      await expectNothingAtDest(guest);
      await test.lab.source.kill();
      await test.lab.startSource();
      expect(await test.lab.source.api.wait(id, WAIT_MS)).toMatchObject({ phase: "failed" });
      await expectWorksAtSource(guest, sinceMs);
      expect(await guest.atSource()).toMatchObject({ pid });
      await expectMoves(guest);
    },
  );
});

describe("when the source's QEMU lives, and does not answer", () => {
  const test = useProxiedLab();
  const hold = useHeldQemus();

  it("when it was handed over: it is ended as it is", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await hold((await guest.atSource()).pid);
    test.proxy.restore();
    await expectArrives(guest, id);
  });

  it("amid the stun: a guest that is to stay is in doubt until it answers, and works on then", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_STUN);
    await guest.inPhase(id, "stunned");
    const sinceMs = performance.now();
    const qemu = await hold((await guest.atSource()).pid);
    await test.lab.source.api.cancel(id);
    const { error } = await guest.inPhase(id, "in-doubt", IN_DOUBT_MS_MAX);
    expect(error?.detail).toContain("QEMU did not answer");
    await expectSilentAtSource(guest);
    qemu.goOn();
    expect(await test.lab.source.api.wait(id, WAIT_MS)).toMatchObject({ phase: "cancelled" });
    await expectWorksAtSource(guest, sinceMs, STANDS_STILL_MS_MAX);
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });
});

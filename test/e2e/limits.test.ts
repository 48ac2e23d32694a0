import { describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { ApiProblem, EventFollower } from "@vmferry/testkit";
import { expectArrives, expectKept, expectMoves } from "../expect-guest.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
/** Of a bandwidth limit, either way. */
const TOLERANCE = 0.15;
const WINDOW_MS = 1000;
/** QEMU compares what is dirty with the threshold at the end of a pass, of 8 MiB at 4 MiB/s. */
const QEMU_PASS_MS = 4000;
/** Rewrites 8 MiB of memory over and over, whole pages, as fast as it can. */
const RESTLESS = { mem: "8M", rate: "max", hot: "0:1", bytes: "4096" };
/** A link that carries less than that, and a downtime in which nothing of it fits. */
const HOPELESS = { bandwidthBytesPerSecond: 10 * MIB, downtimeMsMax: 50 };

describe("what a request may ask of a migration", () => {
  const test = useProxiedLab();

  /**
   * Wire bytes a second, the best of several windows, counted by the proxy and not by an agent. A
   * machine with other things to do may keep the agents from using their bandwidth for a while.
   */
  const measure = async (windows: number): Promise<number> => {
    let best = 0;
    for (let window = 0; window < windows; window++) {
      const [fromMs, fromBytes] = [performance.now(), test.proxy.passedBytes["to-dest"]];
      await pause(WINDOW_MS);
      const bytes = test.proxy.passedBytes["to-dest"] - fromBytes;
      best = Math.max(best, (bytes * 1000) / (performance.now() - fromMs));
    }
    return best;
  };

  const inPrecopy = async (
    guest: MovingGuest,
    limits: Readonly<Record<string, unknown>>,
    more: Readonly<Record<string, unknown>> = {},
  ): Promise<string> => {
    const id = await guest.migrate({ limits, ...more });
    await guest.until(id, ({ ram }) => ram.sentBytes > MIB);
    return id;
  };

  const patch = (id: string, limits: Readonly<Record<string, unknown>>): Promise<MigrationObject> =>
    test.lab.source.api.request("PATCH", `/v1/migrations/${id}`, { limits });

  it("a bandwidth, which it keeps to, and which can be changed while it runs", async () => {
    const guest = await test.boot({ memoryMib: 256, workload: { mem: "128M" } });
    const id = await inPrecopy(guest, { bandwidthBytesPerSecond: 8 * MIB });
    expectAbout(await measure(4), 8 * MIB);
    await patch(id, { bandwidthBytesPerSecond: 16 * MIB });
    await pause(300);
    expectAbout(await measure(3), 16 * MIB);
    const { wire } = await test.lab.source.api.migration(id);
    expect(wire.bytesPerSecond).toBeLessThan(16 * MIB * (1 + TOLERANCE));
    await patch(id, { bandwidthBytesPerSecond: null });
    await expectArrives(guest, id);
    await expect(patch(id, { bandwidthBytesPerSecond: MIB })).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.code === "migration-ended",
    );
  });

  it("a downtime, which decides how much is left for the stun", async () => {
    const guest = await test.boot({ workload: RESTLESS });
    const downtimeMsMax = 1500;
    const migration = await expectMoves(guest, {
      limits: { bandwidthBytesPerSecond: 24 * MIB, downtimeMsMax },
    });
    expect(migration.result!.downtimeMs).toBeLessThan(downtimeMsMax * 1.5);
  });

  it("that pages which change all the time are held back, and those that did not are not sent", async () => {
    const guest = await test.boot({
      memoryMib: 160,
      workload: { mem: "64M", rate: "20000", hot: "90:2", bytes: "64" },
    });
    const id = await guest.migrate({
      // Too little for the hot pages together with what else changes in one pass.
      limits: { bandwidthBytesPerSecond: 16 * MIB, downtimeMsMax: 150 },
      onStall: "stun",
    });
    const follower = await EventFollower.open(
      test.lab.source.api.url,
      `/v1/migrations/${id}/events`,
    );
    const { ram } = await expectArrives(guest, id);
    follower.close();
    const held = follower.events.flatMap((event) =>
      "migration" in event ? [event.migration.ram.heldBytes] : [],
    );
    expect(Math.max(...held)).toBeGreaterThan(0);
    expect(ram.unchangedBytes).toBeGreaterThan(0);
    expect(ram.heldBytes).toBe(0);
  });

  it("to be cancelled when it gains nothing: it fails as not-converging", async () => {
    const guest = await test.boot({ memoryMib: 96, workload: RESTLESS });
    const id = await guest.migrate({
      limits: HOPELESS,
      onStall: "cancel",
    });
    await expectKept(guest, id, { code: "not-converging", during: "pre-copy" });
    await expectMoves(guest, { limits: { downtimeMsMax: 5000 } });
  });

  it("to be stunned all the same when it gains nothing: it warns, and completes", async () => {
    const guest = await test.boot({ memoryMib: 96, workload: RESTLESS });
    const id = await guest.migrate({
      limits: HOPELESS,
      onStall: "stun",
    });
    const follower = await EventFollower.open(
      test.lab.source.api.url,
      `/v1/migrations/${id}/events`,
    );
    const warning = await follower.waitFor(({ type }) => type === "migration.warning", {
      timeoutMs: 60_000,
    });
    expect(warning).toMatchObject({ warning: { code: "not-converging" } });
    await expectArrives(guest, id);
    follower.close();
  });

  it("to be over in time: it fails as time-limit and the guest works on", async () => {
    const guest = await test.boot();
    const sinceMs = performance.now();
    const id = await guest.migrate({
      limits: { bandwidthBytesPerSecond: 4 * MIB, totalMsMax: 3000 },
    });
    const { phases } = await expectKept(guest, id, {
      code: "time-limit",
      during: "pre-copy",
      sinceMs,
    });
    const [began, ended] = [phases[0]!, phases.at(-1)!].map(({ at }) => Date.parse(at));
    expect(ended! - began!).toBeGreaterThanOrEqual(3000);
    expect(ended! - began!).toBeLessThan(5000);
    await expectMoves(guest);
  });

  it("limits that are changed while it runs, and hold within a second", async () => {
    const guest = await test.boot({ memoryMib: 96, workload: RESTLESS });
    const id = await guest.migrate({ limits: HOPELESS, onStall: "throttle" });
    await guest.until(id, ({ ram }) => ram.pass > 1);
    await patch(id, { bandwidthBytesPerSecond: 4 * MIB, totalMsMax: 60_000 });
    await pause(WINDOW_MS);
    expectAbout(await measure(3), 4 * MIB);
    // What is left does not fit any downtime that the limits allow, until this one.
    const raisedMs = Date.now();
    await patch(id, { downtimeMsMax: 8000, totalMsMax: null });
    await expectArrives(guest, id);
    const { phases } = await test.lab.source.api.migration(id);
    const stunned = Date.parse(phases.find(({ phase }) => phase === "stunned")!.at);
    expect(stunned - raisedMs).toBeLessThan(1000 + QEMU_PASS_MS);
  });

  it("to be over earlier than it was asked for at first: it fails at once", async () => {
    const guest = await test.boot({ memoryMib: 96, workload: RESTLESS });
    const id = await inPrecopy(guest, HOPELESS);
    const sinceMs = performance.now();
    await patch(id, { totalMsMax: 1 });
    await expectKept(guest, id, { code: "time-limit", during: "pre-copy", sinceMs });
  });

  it.each([
    [{ fallback: "shared-filesystem" }, "fallback-unavailable"],
    [{ limits: { bandwidthBytesPerSecond: 1 } }, "invalid-request"],
    [{ destination: "ws://127.0.0.1:1" }, "invalid-request"],
  ])("nothing that it cannot have: %j is answered with %s", async (options, code) => {
    const request = { guest: "any", destination: "dest", ...options };
    await expect(test.lab.source.api.migrate(request)).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.code === code,
    );
    expect(await test.lab.source.api.request("GET", "/v1/migrations?limit=1")).not.toMatchObject({
      migrations: [{ guest: "any" }],
    });
  });
});

function expectAbout(bytesPerSecond: number, wanted: number): void {
  expect(bytesPerSecond).toBeGreaterThan(wanted * (1 - TOLERANCE));
  expect(bytesPerSecond).toBeLessThan(wanted * (1 + TOLERANCE));
}

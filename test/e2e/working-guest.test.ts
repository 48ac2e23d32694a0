import { describe, expect, it } from "vitest";
import type { MigrationObject, MigrationPhase } from "@vmferry/protocol";
import { EventFollower } from "@vmferry/testkit";
import { expectArrives, expectMoves } from "../expect-guest.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;

const PHASES_AT_SOURCE: readonly MigrationPhase[] = [
  "preparing",
  "pre-copy",
  "stunned",
  "device-state",
  "handing-over",
  "completing",
  "completed",
];

describe("a working guest", () => {
  const test = useLab();

  it("arrives undamaged, runs at the dest and is gone at the source", async () => {
    const moving = await test.boot({ memoryMib: 256, workload: { mem: "96M" } });
    const migration = await expectMoves(moving);
    expect(migration.phases.map(({ phase }) => phase)).toEqual(PHASES_AT_SOURCE);
    expectPlausible(migration);
    expect(await moving.atDest()).toMatchObject({ epoch: 2, memoryBytes: 256 * MIB });
  });

  it("passes through the same steps at the dest, in order", async () => {
    const atSource = await expectMoves(await test.boot());
    const { wireBytes } = atSource.result!;
    const { result, phases } = await test.lab.dest.api.migration(atSource.id);
    expect(phases.map(({ phase }) => phase)).toEqual(PHASES_AT_SOURCE);
    const times = phases.map(({ at }) => Date.parse(at));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    // What marks the ends of passes is not counted at the source.
    expect(Math.abs(result!.wireBytes! / wireBytes! - 1)).toBeLessThan(0.01);
  });

  it("is followed over Server-Sent Events from the request to its completion", async () => {
    const moving = await test.boot({ workload: { rate: "5000" } });
    const id = await moving.migrate();
    const follower = await EventFollower.open(
      test.lab.source.api.url,
      `/v1/migrations/${id}/events`,
    );
    await expectArrives(moving, id);
    const last = await follower.waitFor(({ type }) => type === "migration.completed", {
      timeoutMs: 5000,
    });
    follower.close();
    const { events } = follower;
    expect(events.at(-1)).toBe(last);
    const ids = events.map((event) => event.id);
    expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
    const phases = events.flatMap((event) =>
      event.type === "migration.phase" ? [event.migration.phase] : [],
    );
    expect(phases).toEqual(PHASES_AT_SOURCE.slice(0, -1));
    const passes = events.flatMap((event) =>
      event.type === "migration.pass" ? [event.migration.ram.pass] : [],
    );
    expect(passes.length).toBeGreaterThan(0);
    expect(passes).toEqual(passes.toSorted((a, b) => a - b));
    expect(events.map(({ type }) => type)).toContain("migration.progress");
    expect("migration" in last && last.migration).toEqual(await test.lab.source.api.migration(id));
  });

  it("is waited for until its migration is over, or until the time is up", async () => {
    const moving = await test.boot();
    const id = await moving.migrate({ limits: { bandwidthBytesPerSecond: 16 * MIB } });
    const early = await test.lab.source.api.wait(id, 100);
    expect(["preparing", "pre-copy"]).toContain(early.phase);
    expect(early.result).toBe(null);
    await expectArrives(moving, id);
    const beganMs = performance.now();
    expect(await test.lab.source.api.wait(id, 60_000)).toMatchObject({ phase: "completed" });
    expect(performance.now() - beganMs).toBeLessThan(5000);
  });

  it.each(["pc-i440fx-10.0", "pc-q35-9.2"])("moves on a %s machine", async (machine) => {
    const moving = await test.boot({ machine });
    await expectMoves(moving);
    expect(await moving.atDest()).toMatchObject({ machine });
  });

  it("moves with two vCPUs", async () => {
    const moving = await test.boot({ vcpus: 2, workload: { rate: "4000" } });
    await expectMoves(moving);
    expect(await moving.atDest()).toMatchObject({ vcpus: 2 });
  });
});

/** Figures that a completed migration of a guest of 256 MiB with 96 MiB of work cannot miss. */
function expectPlausible({ ram, wire, result, disks }: MigrationObject): void {
  expect(ram.totalBytes).toBeGreaterThanOrEqual(256 * MIB);
  expect(ram.totalBytes).toBeLessThan(512 * MIB);
  expect(ram.sentBytes).toBeGreaterThan(96 * MIB);
  expect(ram.zeroBytes).toBeGreaterThan(64 * MIB);
  expect(ram.pass).toBeGreaterThan(1);
  expect(ram).toMatchObject({ remainingBytes: 0, heldBytes: 0 });
  expect(disks).toEqual([]);
  const { wireBytes, totalMs, downtimeMs } = result!;
  // Pages may be compressed on the way, and never take much more than they are.
  expect(wireBytes).toBeGreaterThan(ram.sentBytes / 50);
  expect(wireBytes).toBeLessThan(ram.sentBytes * 1.1 + 4 * MIB);
  expect(wire.bytes).toBe(wireBytes);
  expect(downtimeMs).toBeGreaterThan(5);
  expect(downtimeMs).toBeLessThan(totalMs!);
  expect(totalMs).toBeLessThan(60_000);
}

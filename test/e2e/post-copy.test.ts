import { describe, expect, it } from "vitest";
import { ApiProblem } from "@vmferry/testkit";
import { expectEqualDigests } from "../expect-disks.ts";
import { expectArrives, expectMoves } from "../expect-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
/** Dirties several times of what the link below carries. */
const RESTLESS = { mem: "64M", rate: "20000", hot: "0:1", bytes: "4096" };
const LINK = { bandwidthBytesPerSecond: 16 * MIB };

describe("post-copy", () => {
  const test = useProxiedLab();

  it("moves a guest that dirties more than the link carries, and every page arrives", async () => {
    const guest = await test.boot({ memoryMib: 160, workload: RESTLESS });
    const migration = await expectMoves(guest, { mode: "post-copy", limits: LINK });
    expect(migration.phases.map(({ phase }) => phase)).toContain("post-copy");
    expect(migration.faults.count).toBeGreaterThan(0);
    const atDest = await test.lab.dest.api.migration(migration.id);
    expect(atDest.phases.map(({ phase }) => phase)).toContain("post-copy");
    expect(atDest.faults.count).toBeGreaterThan(0);
    expect(atDest.faults.p50Us).toBeGreaterThan(0);
    // What its first pass had sent would have come again.
    expect(test.lab.source.logText).toContain('"start":"outrun"');
  });

  it("sends a guest that the link keeps up with as pre-copy does", async () => {
    const guest = await test.boot({ memoryMib: 160, workload: { mem: "64M", rate: "500" } });
    const logged = test.lab.source.logText.length;
    const migration = await expectMoves(guest, { mode: "post-copy", limits: LINK });
    expect(migration.faults.count).toBeLessThan(1000);
    expect(test.lab.source.logText.slice(logged)).not.toContain('"start":"outrun"');
  });

  it("begins when it is asked for in the middle of pre-copy", async () => {
    const guest = await test.boot({ memoryMib: 160, workload: RESTLESS });
    const id = await guest.migrate({ limits: { ...LINK, downtimeMsMax: 20 } });
    await guest.until(id, ({ ram }) => ram.pass > 1);
    await test.lab.source.api.request("POST", `/v1/migrations/${id}/post-copy`);
    const migration = await expectArrives(guest, id);
    expect(migration.phases.map(({ phase }) => phase)).toContain("post-copy");
    await expect(
      test.lab.source.api.request("POST", `/v1/migrations/${id}/post-copy`),
    ).rejects.toSatisfy((error) => error instanceof ApiProblem && error.code === "migration-ended");
  });

  it("moves a guest that writes to its disk meanwhile, which is whole at the hand-over", async () => {
    await test.lab.makeDisk("later.raw", 64 * MIB, { fill: 0.5 });
    const guest = await test.boot({
      memoryMib: 160,
      workload: { ...RESTLESS, rate: "8000", diskrate: "100" },
      disks: [{ id: "disk0", image: "later.raw" }],
    });
    const migration = await expectMoves(guest, { mode: "post-copy", limits: LINK });
    expect(migration.phases.map(({ phase }) => phase)).toContain("post-copy");
    await expectEqualDigests(guest, migration, ["disk0"]);
  });

  it("is what a stall leads to where the request says so", async () => {
    const guest = await test.boot({ memoryMib: 160, workload: { ...RESTLESS, rate: "max" } });
    const limits = { bandwidthBytesPerSecond: 24 * MIB, downtimeMsMax: 50 };
    const migration = await expectMoves(guest, { onStall: "post-copy", limits });
    expect(migration.phases.map(({ phase }) => phase)).toContain("post-copy");
  });

  it("is refused to a migration that was asked for with mode pre-copy", async () => {
    const guest = await test.boot({ memoryMib: 160, workload: RESTLESS });
    const id = await guest.migrate({ mode: "pre-copy", limits: LINK });
    await guest.until(id, ({ ram }) => ram.sentBytes > MIB);
    await expect(
      test.lab.source.api.request("POST", `/v1/migrations/${id}/post-copy`),
    ).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.code === "post-copy-unavailable",
    );
    await test.lab.source.api.cancel(id);
  });
});

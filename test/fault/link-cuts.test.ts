import { describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { bulkAt, controlOf } from "@vmferry/testkit";
import { expectEqualDigests } from "../expect-disks.ts";
import { expectArrives } from "../expect-guest.ts";
import { LONG_STUN } from "../held-open.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const CREDIT_BYTES = 16 * MIB;
/** Some seconds for each stretch, and much of it under way at any time. */
const LINK = { limits: { bandwidthBytesPerSecond: 24 * MIB } };

type Match = ReturnType<typeof bulkAt>;

describe("a link that is cut and comes back", () => {
  const test = useProxiedLab();

  /** Ends every connection at the message, which is lost with all that follows it. */
  const cutAt = async (match: Match, awayMs = 300): Promise<void> => {
    await test.proxy.hold(match);
    test.proxy.cut();
    await pause(awayMs);
    test.proxy.restore();
  };

  /** The next that goes so far on its connection: a new one counts from 0. */
  const frame = (index: number): Match => {
    const match = bulkAt(index);
    return (message) => match(message) && message.payloadBytes > 4096;
  };

  const isBack = (id: string, reconnects: number): Promise<MigrationObject> =>
    test.lab.source.api.migration(id).then(async (migration) => {
      if (migration.wire.reconnects >= reconnects) return migration;
      await pause(20);
      return isBack(id, reconnects);
    });

  /** Of frames, for each time that the link was lost, as the source's log has it. */
  const resentBytes = (): readonly number[] =>
    test.lab.source.logText
      .split("\n")
      .filter((line) => line.includes("the link is back"))
      .map((line) => (JSON.parse(line) as { resentBytes: number }).resentBytes);

  const withDisk = async (name: string): Promise<MovingGuest> => {
    await test.lab.makeDisk(name, 256 * MIB, { fill: 0.6 });
    return test.boot({ workload: { diskrate: "200" }, disks: [{ id: "disk0", image: name }] });
  };

  it("costs the disk copy nothing but what was under way", async () => {
    const guest = await withDisk("copy.raw");
    const id = await guest.migrate(LINK);
    await guest.inPhase(id, "disk-copy");
    const before = resentBytes().length;
    for (const [round, index] of [20, 1, 33, 7].entries()) {
      await cutAt(frame(index), 200 * round);
      const { phase } = await isBack(id, round + 1);
      expect(phase).toBe("disk-copy");
    }
    await guest.limitBandwidth(id, null);
    const migration = await expectArrives(guest, id);
    await expectEqualDigests(guest, migration, ["disk0"]);
    expect(migration.wire.reconnects).toBe(4);
    const resent = resentBytes().slice(before);
    expect(resent).toHaveLength(4);
    expect(Math.max(...resent)).toBeLessThan(CREDIT_BYTES);
    expect(Math.max(...resent)).toBeGreaterThan(0);
  });

  it("costs pre-copy nothing but what was under way", async () => {
    const guest = await test.boot({ workload: { mem: "64M" } });
    const id = await guest.migrate({
      limits: { bandwidthBytesPerSecond: 16 * MIB, downtimeMsMax: 100 },
    });
    await guest.inPhase(id, "pre-copy");
    const before = resentBytes().length;
    await cutAt(frame(6));
    await isBack(id, 1);
    await cutAt(controlOf("credit"), 1000);
    await isBack(id, 2);
    await cutAt(frame(1), 0);
    await isBack(id, 3);
    await guest.limitBandwidth(id, null);
    const migration = await expectArrives(guest, id);
    expect(migration.wire.reconnects).toBe(3);
    const resent = resentBytes().slice(before);
    expect(Math.max(...resent)).toBeLessThan(CREDIT_BYTES);
    // What was sent before is not sent again: two copies of its memory would be more than this.
    expect(migration.ram.sentBytes).toBeLessThan(2 * 128 * MIB);
  });

  it("goes on behind the frame that was cut in two", async () => {
    const guest = await test.boot();
    const truncated = test.proxy.truncate(frame(10), 1000);
    const id = await guest.migrate(LINK);
    await truncated;
    test.proxy.restore();
    const migration = await expectArrives(guest, id);
    expect(migration.wire.reconnects).toBe(1);
  });

  it("is survived amid the stun when it is back at once", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_STUN);
    await guest.inPhase(id, "stunned");
    await cutAt(frame(1), 300);
    await isBack(id, 1).catch(() => null);
    const migration = await expectArrives(guest, id);
    expect(migration.wire.reconnects).toBe(1);
  });

  it.each(["stunned", "prepared"] as const)(
    "is survived at %s, which comes all the same and once",
    async (kind) => {
      const guest = await test.boot();
      const cut = cutAt(controlOf(kind), 100);
      const id = await guest.migrate();
      await cut;
      const migration = await expectArrives(guest, id);
      expect(migration.wire.reconnects).toBe(1);
      expect(migration.result!.downtimeMs).toBeLessThan(2500);
    },
  );
});

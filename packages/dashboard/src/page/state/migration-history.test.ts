import { describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { MigrationHistory } from "./migration-history.ts";
import { sampleEvent, sampleMigration } from "../../sample-migration.ts";

const MIB = 1024 * 1024;
const { ram } = sampleMigration([]);
const disk: MigrationObject["disks"][number] = {
  ...{ id: "disk0", totalBytes: 9 * MIB, copiedBytes: 0, remainingBytes: 4 * MIB, round: 2 },
  ...{ mirroredBytes: 0, heldBytes: MIB, zeroBytes: 0, unchangedBytes: 0, savedBytes: 0 },
  mode: "copy",
};

function copying(changes: Partial<MigrationObject> = {}): MigrationObject {
  return sampleMigration(
    [
      ["preparing", 0],
      ["pre-copy", 100],
    ],
    {
      ram: { ...ram, totalBytes: 64 * MIB, remainingBytes: 8 * MIB, pass: 2 },
      wire: { bytes: 5, bytesPerSecond: 1000, reconnects: 0 },
      ...changes,
    },
  );
}

describe("the history of a migration", () => {
  it("has a sample an event, timed from the first phase", () => {
    const history = new MigrationHistory();
    const migration = copying({ disks: [disk] });
    history.add(sampleEvent(1, 1500, { type: "migration.progress", migration }));
    expect(history.samples).toEqual([
      {
        ...{ seconds: 1.5, ramRemaining: 8 * MIB, diskRemaining: 4 * MIB, dirtyRate: null },
        ...{ wireRate: 1000, ramHeld: 0, diskHeld: MIB },
      },
    ]);
    expect(history.log).toEqual([]);
  });

  it("knows nothing of memory that was not announced, nor of disks that are not copied", () => {
    const history = new MigrationHistory();
    const migration = sampleMigration([["preparing", 0]], {
      disks: [{ ...disk, mode: "shared" }],
    });
    history.add(sampleEvent(1, 0, { type: "migration.phase", migration }));
    expect(history.samples[0]).toMatchObject({
      ...{ ramRemaining: null, ramHeld: null, diskRemaining: null, diskHeld: null, wireRate: null },
    });
  });

  it("knows at the dest nothing of what is held", () => {
    const history = new MigrationHistory();
    const migration = copying({ role: "dest", disks: [disk] });
    history.add(sampleEvent(1, 0, { type: "migration.progress", migration }));
    expect(history.samples[0]).toMatchObject({ ramHeld: null, diskHeld: null });
  });

  it("logs phases, passes, warnings and the end, not progress", () => {
    const history = new MigrationHistory();
    const error = { code: "cancelled", detail: "cancelled by request" } as const;
    const cancelled = copying({ phase: "cancelled", error });
    history.add(sampleEvent(1, 0, { type: "migration.phase", migration: copying() }));
    history.add(sampleEvent(2, 1, { type: "migration.pass", migration: copying() }));
    history.add(sampleEvent(3, 2, { type: "migration.progress", migration: copying() }));
    history.add(sampleEvent(4, 3, { type: "migration.cancelled", migration: cancelled }));
    expect(history.log.map(({ kind, text }) => [kind, text])).toEqual([
      ["phase", "Phase pre-copy"],
      ["pass", "Memory, pass 2: 8.0 MiB left"],
      ["end", "cancelled: cancelled: cancelled by request"],
    ]);
  });

  it("keeps a bounded number of samples from the beginning to now", () => {
    const history = new MigrationHistory();
    for (let i = 0; i < 50_000; i++) {
      history.add(sampleEvent(i, i * 250, { type: "migration.progress", migration: copying() }));
    }
    const { samples } = history;
    expect(samples.length).toBeLessThan(2048);
    expect(samples.length).toBeGreaterThan(1000);
    expect(samples[0]?.seconds).toBeLessThan(10);
    expect(samples.at(-1)?.seconds).toBeGreaterThan(12_400);
  });

  it("keeps a bounded log", () => {
    const history = new MigrationHistory();
    for (let i = 0; i < 800; i++) {
      history.add(sampleEvent(i, i, { type: "migration.pass", migration: copying() }));
    }
    expect(history.log).toHaveLength(500);
    expect(history.log.at(-1)?.id).toBe(799);
  });
});

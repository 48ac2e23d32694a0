import { expect, test } from "vitest";
import { completedMigration, sampleDisk, sampleMigration } from "../fake-agent.ts";
import { progressLine } from "./progress-line.ts";

const FULL =
  "pre-copy  sent 312 MiB  at 98.2 MB/s  left 45.2 MiB  held 3.00 MiB  dirty 12.1 MB/s  pass 3  " +
  "downtime ~120 ms  ETA 600 ms";
const busy = sampleMigration({ ram: { ...sampleMigration().ram, heldBytes: 3 * 1024 ** 2 } });

test("a line says all that is known while pages are copied", () => {
  expect(progressLine(busy)).toBe(FULL);
});

test("nothing held is not worth a word", () => {
  expect(progressLine(sampleMigration())).not.toContain("held");
});

test("what nobody knows is called unknown", () => {
  const { ram, wire } = sampleMigration();
  const line = progressLine(
    sampleMigration({
      ram: { ...ram, remainingBytes: null, dirtyBytesPerSecond: null },
      wire: { ...wire, bytesPerSecond: null },
      predictedDowntimeMs: null,
      etaMs: null,
    }),
  );
  expect(line).toBe(
    "pre-copy  sent 312 MiB  at unknown  left unknown  dirty unknown  pass 3  downtime unknown  " +
      "ETA unknown",
  );
});

test("while disks are copied it is their figures that count", () => {
  const ram = { ...sampleMigration().ram, totalBytes: null };
  const disks = [sampleDisk(), sampleDisk({ id: "disk1", round: 2, heldBytes: 64 * 1024 })];
  expect(progressLine(sampleMigration({ phase: "disk-copy", ram, disks }))).toBe(
    "disk-copy  sent 312 MiB  at 98.2 MB/s  left 1.00 GiB  held 64.0 KiB  mirrored 6.00 MiB  " +
      "round 2  ETA 600 ms",
  );
});

test("while a guest fetches its memory, its faults are shown and no downtime", () => {
  const faults = { count: 1234, p50Us: 400, p99Us: 12_000 };
  expect(progressLine(sampleMigration({ phase: "post-copy", faults }))).toBe(
    "post-copy  sent 312 MiB  at 98.2 MB/s  left 45.2 MiB  faults 1234  p99 12 ms  ETA 600 ms",
  );
});

test("what follows a guest by the share, and of its disks, is shown with its memory", () => {
  const disks = [
    sampleDisk(),
    sampleDisk({ id: "disk1", remainingBytes: 0 }),
    sampleDisk({ id: "disk2", mode: "scratch" }),
  ];
  const migration = sampleMigration({ phase: "post-copy", fallback: "growing", disks });
  const line =
    "post-copy  sent 312 MiB  at 98.2 MB/s  left 45.2 MiB  disks left 512 MiB  share growing  " +
    "faults 0  ETA 600 ms";
  expect(progressLine(migration)).toBe(line);
  expect(progressLine(migration, 80)).toBe(
    "post-copy  sent 312 MiB  at 98.2 MB/s  left 45.2 MiB  disks left 512 MiB",
  );
});

test("disks that are whole are not worth a word, and of those unknown it is said", () => {
  const line = (remainingBytes: number | null): string =>
    progressLine(sampleMigration({ phase: "post-copy", disks: [sampleDisk({ remainingBytes })] }));
  expect(line(0)).not.toContain("disks");
  expect(line(null)).toContain("disks left unknown");
});

test("a guest of unknown size has a phase and no figures yet", () => {
  const ram = { ...sampleMigration().ram, totalBytes: null };
  expect(progressLine(sampleMigration({ phase: "preparing", ram }))).toBe("preparing");
});

test("forecasts end with the copying", () => {
  expect(progressLine(sampleMigration({ phase: "device-state" }))).toBe(
    "device-state  sent 312 MiB",
  );
  expect(progressLine(completedMigration())).toBe("completed");
});

test.each([
  [80, "pre-copy  sent 312 MiB  at 98.2 MB/s  left 45.2 MiB  pass 3  ETA 600 ms"],
  [40, "pre-copy  sent 312 MiB  at 98.2 MB/s"],
  [12, "pre-copy"],
  [5, "pre-c"],
])("in %i columns only the more important fields are left", (columns, line) => {
  expect(progressLine(busy, columns)).toBe(line);
});

test("no line is longer than the columns that there are, and none wastes what it could use", () => {
  let longestBefore = 0;
  for (let columns = 1; columns <= FULL.length; columns++) {
    const { length } = progressLine(busy, columns);
    expect(length).toBeLessThanOrEqual(columns);
    expect(length).toBeGreaterThanOrEqual(longestBefore);
    longestBefore = length;
  }
  expect(progressLine(busy, FULL.length)).toBe(FULL);
});

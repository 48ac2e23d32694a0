import { beforeEach, expect, test } from "vitest";
import { EventHub, ManualClock, MigrationStore, newMigrationObject } from "@vmferry/agent";
import { ProgressReport } from "./progress-report.ts";

const NO_COUNTS = {
  ...{ copiedBytes: 0, mirroredBytes: 0, heldBytes: 0, round: 0 },
  ...{ zeroBytes: 0, unchangedBytes: 0, savedBytes: 0 },
};

let clock: ManualClock;
let store: MigrationStore;
let report: ProgressReport;

beforeEach(() => {
  clock = new ManualClock();
  store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  const about = { id: "m1", role: "source", guest: "web1", destination: "host-b" } as const;
  store.create(newMigrationObject({ ...about, startedAt: clock.date() }));
  report = new ProgressReport({ store, id: "m1", clock, memoryBytes: 65_536 });
  const disk = { ...NO_COUNTS, id: "disk0", mode: "copy", totalBytes: 8192 } as const;
  store.update("m1", () => ({ disks: [{ ...disk, remainingBytes: 8192 }] }));
});

function memory(remainingBytes: number, wireBytes: number): void {
  const counts = { requestedPages: 0, reconnects: 0, fallback: null };
  report.rest({ remainingBytes, wireBytes, ...counts });
}

function disks(remainingBytes: number, wireBytes: number): void {
  const left = [{ id: "disk0", totalBytes: 8192, remainingBytes }];
  report.disksFollow({ disks: left, wireBytes, reconnects: 0 });
}

test("the time that is left is that of memory and disks that follow together", () => {
  memory(6000, 0);
  clock.advance(1000);
  memory(4000, 2000);
  expect(store.get("m1")).toMatchObject({ etaMs: 6096, wire: { bytesPerSecond: 2000 } });
  disks(4000, 0);
  expect(store.get("m1")).toMatchObject({ etaMs: 4000, disks: [{ copiedBytes: 4192 }] });
});

test("disks take their time when no memory follows", () => {
  disks(8000, 0);
  clock.advance(1000);
  disks(6000, 2000);
  expect(store.get("m1").etaMs).toBe(3000);
});

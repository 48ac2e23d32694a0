import { beforeEach, expect, test } from "vitest";
import { EventHub, ManualClock, MigrationStore } from "@vmferry/agent";
import type { ControlMessageOf, MigrationDisk } from "@vmferry/protocol";
import { ArrivalReport } from "./arrival-report.ts";

const offer: ControlMessageOf<"offer"> = {
  kind: "offer",
  migrationId: "m1",
  epoch: 3,
  guest: {
    name: "web1",
    machine: "pc-q35-10.0",
    memoryBytes: 2 ** 29,
    boot: { kernel: "vmlinuz" },
    disks: [
      { id: "copied", image: "a.raw" },
      { id: "lazy", image: "b.raw" },
      { id: "shared", image: "c.raw", mode: "shared" },
    ],
  },
  accel: "tcg",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
  qemuVersion: "10.0.2",
  bulkConnections: 1,
  disks: [8192, 65_536, 4096].map((sizeBytes) => ({
    ...{ sizeBytes, dataBytes: sizeBytes, blockBytes: 4096, proof: null },
  })),
  hashSeed: "00112233445566ff",
  incarnation: "s1",
  postCopy: true,
  witness: null,
};

let clock: ManualClock;
let store: MigrationStore;
let report: ArrivalReport;

beforeEach(() => {
  clock = new ManualClock();
  store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  report = new ArrivalReport(store, "m1", clock);
  report.begin(offer, {
    ram: { counters: { fedPages: 0, zeroPages: 0 }, totalBytes: 2 ** 29 },
    bulk: { wireBytes: 1000 },
    disks: { arriving: [{ id: "copied", receivedBytes: 5000 }] },
  });
});

/** When the counters were looked at once more. */
function disksNow(): readonly Pick<MigrationDisk, "id" | "copiedBytes" | "remainingBytes">[] {
  clock.advance(500);
  return store.get("m1").disks.map(({ id, copiedBytes, remainingBytes }) => ({
    ...{ id, copiedBytes, remainingBytes },
  }));
}

test("what is left of a disk is the source's to know until the guest runs here", () => {
  expect(disksNow()).toEqual([
    { id: "copied", copiedBytes: 5000, remainingBytes: null },
    { id: "lazy", copiedBytes: 0, remainingBytes: null },
    { id: "shared", copiedBytes: 0, remainingBytes: null },
  ]);
});

test("of a disk that follows the guest its own figures tell, and the others are whole then", () => {
  report.disksFollow({ progress: [{ id: "lazy", remainingBytes: 49_152 }] });
  expect(disksNow()).toEqual([
    { id: "copied", copiedBytes: 5000, remainingBytes: 0 },
    { id: "lazy", copiedBytes: 16_384, remainingBytes: 49_152 },
    { id: "shared", copiedBytes: 0, remainingBytes: null },
  ]);
  expect(store.get("m1").phase).toBe("post-copy");
});

test("figures go on behind a hand-over that has stood still for a while", () => {
  report.inDoubt("look at the shared directory");
  let remainingBytes = 49_152;
  report.disksFollow({
    get progress() {
      return [{ id: "lazy", remainingBytes }];
    },
  });
  remainingBytes = 4096;
  expect(disksNow()[1]).toMatchObject({ remainingBytes: 4096 });
  expect(store.get("m1")).toMatchObject({ phase: "post-copy", error: null });
});

test("figures end with what this life of the agent can do", () => {
  report.halted("start this agent anew");
  clock.advance(500);
  expect(store.get("m1")).toMatchObject({ phase: "in-doubt", disks: [] });
});

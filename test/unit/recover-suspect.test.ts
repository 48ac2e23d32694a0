import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  ReopenedImage,
  type DiskRecoveryPort,
  type GivenBack,
} from "../../packages/agent/src/index.ts";
import { HeldSockets } from "@vmferry/block";
import { ImageDurability } from "../../packages/block/src/image/image-durability.ts";
import { DiskRecovery } from "../../packages/source-agent/src/adapters/disk-recovery.ts";
import {
  exportNotePath,
  readExportNote,
  writeExportNote,
} from "../../packages/source-agent/src/adapters/export-note.ts";
import { recoverGuests } from "../../packages/source-agent/src/session/recover-guests.ts";
import { RecoveredSession } from "../../packages/source-agent/src/session/recovered-session.ts";
import { EarlierGuest, GUEST, STUN } from "./earlier-guest.ts";
import { ExportedQemu } from "./exported-qemu.ts";

let root: string;
let sockets: HeldSockets;
let socketPath: string;
let note: string;
let earlier: EarlierGuest<"source">;
let qemu: ExportedQemu;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "vmferry-suspect-"));
  sockets = await HeldSockets.open({ directory: root, onTrouble: expect.unreachable });
  socketPath = join(root, "7b1e26d6-0.nbd");
});
afterEach(async () => {
  vi.restoreAllMocks();
  await earlier.end();
  sockets.close();
  await rm(root, { recursive: true });
});

interface Left {
  readonly records?: readonly string[];
  /** Of QEMU. */
  readonly status?: string;
  /** What the agent before has told QEMU of a flush. */
  readonly isSuspect?: boolean;
  readonly recovery?: (recovery: DiskRecovery) => DiskRecoveryPort;
}

/** The agent before has died in the middle of an attempt. */
async function left(found: Left = {}): Promise<void> {
  const { records = ["begin"], status = "running", isSuspect = true } = found;
  const { recovery = (real: DiskRecovery) => real } = found;
  earlier = await EarlierGuest.make("source", {
    records,
    qemu: ({ imagePath }) => (qemu = new ExportedQemu(status, { socketPath, imagePath })),
    diskRecovery: recovery(new DiskRecovery(sockets)),
  });
  note = exportNotePath(earlier.directory, "disk0");
  await writeExportNote(note, socketPath, isSuspect);
}

/** As an agent that starts, until what its last life has left is done. */
async function recover(): Promise<void> {
  const { registry, store, journals, imageDir, clock, logger } = earlier;
  const ports = { registry, store, journals, imageDir, clock, logger, witness: null };
  const nothing = { exists: () => Promise.resolve(false), discard: () => Promise.resolve() };
  const rest = { ...nothing, serve: () => Promise.resolve(null) };
  for (const { ports: own, stun, step } of await recoverGuests(ports, () => undefined)) {
    const session = new RecoveredSession(
      {
        ...{ ...own, rest, leftDisks: rest, store, clock, logger, peerRefusal: null },
        dialer: { control: () => Promise.reject(new Error("nobody answers")) },
        identity: { software: "test", incarnation: "p1" },
      },
      stun,
      step,
    );
    const ended = session.run();
    await store.wait(stun.migrationId, 5000);
    session.stop();
    await ended;
  }
}

/** As `recover` has it from an agent that starts, apart from the journal. */
function giveBack(): Promise<GivenBack> {
  const { directory, imageDir, logger, registry } = earlier;
  const { qmp, definition } = registry.find(GUEST);
  const disks = { directory, disks: definition.disks, mirrored: false, imageDir, logger };
  return new DiskRecovery(sockets).giveBack({ ...disks, qmp });
}

/** The disk fails to store something, and says so once. */
function failFlush(): void {
  vi.spyOn(ImageDurability.prototype, "flush").mockImplementationOnce(function (
    this: ImageDurability,
  ) {
    this.storageFailed();
    return Promise.reject(new Error("EIO"));
  });
}

const SWAPPED = ["stop", "stop", "blockdev-reopen", "blockdev-del"];

function expectStopped(status = "paused"): void {
  expect(qemu.status).toBe(status);
  expect(earlier.registry.get(GUEST).state).toBe("paused");
  expect(earlier.store.get(STUN.migrationId)).toMatchObject({
    phase: "failed",
    error: {
      code: "source-disk-failed",
      detail: expect.stringMatching(/stays stopped.*start it anew/) as string,
    },
  });
}

test("a guest whose flush has failed stays stopped when its attempt is rolled back", async () => {
  await left();
  await recover();
  expect(qemu.told).toEqual(SWAPPED);
  expectStopped();
}, 20_000);

test("nor does a later agent start it, whatever the last one could still record", async () => {
  await left();
  await recover();
  expect(await readExportNote(note)).toEqual({ socketPath: null, isSuspect: true });
  qemu.told.length = 0;
  expect([await giveBack(), qemu.told]).toEqual(["suspect", []]);
  expect(await giveBack()).toBe("suspect");
}, 20_000);

test("nor one that could not open the export before it asked QEMU", async () => {
  await left({
    recovery: (real) => ({
      reopen: () => Promise.resolve(),
      giveBack: (guest) => real.giveBack(guest),
      forget: (guest) => real.forget(guest),
    }),
  });
  await recover();
  expect(qemu.told).toEqual(SWAPPED);
  expectStopped();
}, 20_000);

test("it stays stopped although its disk was given back by the second attempt alone", async () => {
  await left();
  const first = vi.spyOn(earlier.registry, "bringBack");
  qemu.refuses = "blockdev-del";
  await recover();
  expect(first).toHaveBeenCalledTimes(2);
  expect(qemu.told).not.toContain("cont");
  expectStopped();
}, 20_000);

test("a flush that fails only now is written down before QEMU is told, and keeps the guest stopped", async () => {
  const opened = vi.spyOn(ReopenedImage, "open");
  await left({ isSuspect: false, status: "io-error" });
  qemu.whenTold = async (command) => {
    if (command !== "blockdev-reopen") return;
    const image = (await opened.mock.results[0]!.value) as ReopenedImage;
    failFlush();
    await expect(image.flush()).rejects.toThrow("EIO");
    expect(await readExportNote(note)).toEqual({ socketPath, isSuspect: true });
  };
  await recover();
  expect(qemu.told).toEqual(["blockdev-reopen", "blockdev-del", "stop", "stop"]);
  expectStopped("io-error");
}, 20_000);

test("one that nobody moves any more is not started either", async () => {
  await left({ records: ["begin", "kept"] });
  await recover();
  expect([qemu.told, qemu.status]).toEqual([SWAPPED, "paused"]);
}, 20_000);

test("a guest whose flushes have all succeeded goes on", async () => {
  await left({ isSuspect: false, status: "io-error" });
  await recover();
  expect([qemu.told, qemu.status]).toEqual([
    ["blockdev-reopen", "blockdev-del", "cont"],
    "running",
  ]);
  expect(await readExportNote(note)).toBe(null);
}, 20_000);

test("a note that cannot be read is not taken for one that says nothing", async () => {
  await left();
  await writeFile(note, "{");
  const { registry, store, journals, imageDir, clock, logger } = earlier;
  const ports = { registry, store, journals, imageDir, clock, logger, witness: null };
  const [one] = await recoverGuests(ports, () => undefined);
  await expect(one!.ports.bringBack()).rejects.toThrow(/cannot be read.*has lost a write/);
  await one!.ports.closeJournal();
  expect(qemu.told).toEqual([]);
}, 20_000);

test("what was written down goes with the QEMU that it is about", async () => {
  await left();
  await recover();
  const { directory, imageDir, logger } = earlier;
  const { disks } = earlier.registry.find(GUEST).definition;
  await new DiskRecovery(sockets).forget({ directory, disks, mirrored: false, imageDir, logger });
  expect(await readExportNote(note)).toBe(null);
}, 20_000);

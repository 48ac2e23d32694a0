import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { limits, type ControlMessage } from "@vmferry/protocol";
import { bulkAt, controlOf } from "@vmferry/testkit";
import { expectNoImage, expectSwapUndone } from "../expect-disks.ts";
import {
  expectArrives,
  expectDestSays,
  expectKept,
  expectMoves,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { LONG_PRE_COPY, LONG_STUN } from "../held-open.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { writeProbedQemu } from "../probed-qemu.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
/** Heartbeats find a link that is dead without a word: after 8 seconds, looked at every 2. */
const SILENT_LINK_MS_MAX = 10_500;
/** Some 128 MiB. */
const LONG_DISK_COPY = { limits: { bandwidthBytesPerSecond: 4 * MIB } };
/** How long a guest stands still whose link does not come back, and a moment to roll back. */
const STUNNED_MS_MAX = limits.LINK_LOST_STUNNED_MS_MAX + 1500;

/** Of QEMUs that can be looked into. */
const directory = await mkdtemp(join(tmpdir(), "vmferry-broken-link-"));
const qemu = await writeProbedQemu(directory);
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe("a migration over a link that breaks", () => {
  const test = useProxiedLab({ source: { environment: { VMFERRY_QEMU: qemu } } });

  /** A guest that writes to its disk, some way through a copy of it that takes long. */
  const inDiskCopy = async (): Promise<{ guest: MovingGuest; id: string; image: string }> => {
    const image = "away.raw";
    await test.lab.makeDisk(image, 256 * MIB, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "500", diskthreads: "2", disksweep: "8" },
      disks: [{ id: "disk0", image }],
    });
    const id = await guest.migrate(LONG_DISK_COPY);
    await guest.until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > 4 * MIB);
    return { guest, id, image };
  };

  const inPrecopy = async (guest: MovingGuest): Promise<string> => {
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.until(id, ({ ram }) => ram.sentBytes > 4 * MIB);
    return id;
  };

  // Two guests in one test: the minute is waited for once.
  it("fails as peer-lost when the link stays away for a minute, on both sides, in pre-copy and while a disk is copied", async () => {
    const { guest: other, id: otherId, image } = await inDiskCopy();
    const guest = await test.boot();
    const id = await inPrecopy(guest);
    expect(await test.lab.source.api.migration(otherId)).toMatchObject({ phase: "disk-copy" });
    const sinceMs = performance.now();
    test.proxy.cut();
    const isOver = test.lab.source.api.wait(id, 90_000).then(() => performance.now() - sinceMs);
    const isOtherOver = test.lab.source.api
      .wait(otherId, 90_000)
      .then(() => performance.now() - sinceMs);
    for (const awayMs of await Promise.all([isOver, isOtherOver])) {
      expect(awayMs).toBeGreaterThan(limits.LINK_LOST_MS_MAX - 1000);
      expect(awayMs).toBeLessThan(limits.LINK_LOST_MS_MAX + 3000);
    }
    await expectKept(guest, id, { code: "peer-lost", during: "pre-copy", sinceMs });
    await expectKept(other, otherId, { code: "peer-lost", during: "disk-copy", sinceMs });
    await expectDestSays(guest, id, "peer-lost");
    await expectDestSays(other, otherId, "peer-lost");
    test.proxy.restore();
    await expectSwapUndone(other, directory, "disk0");
    expectNoImage(test.lab.imagePath("dest", image));
    await expectMoves(other);
    await expectMoves(guest);
  });

  it("fails as peer-lost when the link stays away amid the stun: the guest runs after two seconds", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_STUN);
    await guest.inPhase(id, "stunned");
    const sinceMs = performance.now();
    test.proxy.cut();
    await test.lab.source.api.wait(id, 30_000);
    expect(performance.now() - sinceMs).toBeLessThan(STUNNED_MS_MAX);
    test.proxy.restore();
    const silenceMsMax = STUNNED_MS_MAX;
    await expectKept(guest, id, { code: "peer-lost", during: "stunned", sinceMs, silenceMsMax });
    await expectDestSays(guest, id, "peer-lost");
    await expectMoves(guest);
  });

  it("rolls back when the link is cut while PREPARED is on its way, and stays away", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("prepared"));
    const id = await guest.migrate();
    await held;
    const sinceMs = performance.now();
    test.proxy.cut();
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(performance.now() - sinceMs).toBeLessThan(STUNNED_MS_MAX);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "peer-lost" } });
    await expectWorksAtSource(guest, sinceMs, STUNNED_MS_MAX);
    test.proxy.restore();
    // The dest waits, prepared, for a source that has gone on without it, and has to understand that.
    await expectMoves(guest);
  });

  it.each([
    ["checksum", 1],
    ["sequence number", 20],
    ["run table", 34],
    ["last byte of page data", -1],
  ])("fails as frame-corrupt when a bit flips in a frame's %s", async (_, offset) => {
    const guest = await test.boot();
    const match = bulkAt(30);
    const corrupted = test.proxy.corrupt(
      (message) => match(message) && message.payloadBytes > 4096,
      offset,
    );
    const sinceMs = performance.now();
    const id = await guest.migrate();
    await corrupted;
    await expectKept(guest, id, { code: "frame-corrupt", during: "pre-copy", sinceMs });
    await expectDestSays(guest, id, "frame-corrupt");
    await expectMoves(guest);
  });

  it("fails as frame-corrupt when a bit flips amid the stun, and the guest runs on", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_STUN);
    await guest.inPhase(id, "stunned");
    const sinceMs = performance.now();
    await test.proxy.corrupt(bulkAt(0), -1);
    await expectKept(guest, id, { code: "frame-corrupt", during: "stunned", sinceMs });
    await expectDestSays(guest, id, "frame-corrupt");
    await expectMoves(guest);
  });

  it("fails as digest-mismatch when the digest of the source is not that of the dest", async () => {
    const guest = await test.boot();
    const replaced = test.proxy.replace(controlOf("stunned"), withAnotherDigest);
    const sinceMs = performance.now();
    const id = await guest.migrate();
    await replaced;
    await expectKept(guest, id, { code: "digest-mismatch", during: "device-state", sinceMs });
    await expectDestSays(guest, id, "digest-mismatch");
    await expectMoves(guest);
  });

  it("fails as digest-mismatch when PREPARED tells of other memory than was sent", async () => {
    const guest = await test.boot();
    const replaced = test.proxy.replace(controlOf("prepared"), withAnotherDigest);
    const sinceMs = performance.now();
    const id = await guest.migrate();
    await replaced;
    await expectKept(guest, id, { code: "digest-mismatch", during: "device-state", sinceMs });
    await expectMoves(guest);
  });

  it.each(["to-dest", "to-source"] as const)(
    "finds out within ten seconds that nothing passes %s any more, and goes on when it does",
    async (direction) => {
      const guest = await test.boot();
      const id = await inPrecopy(guest);
      const sinceMs = performance.now();
      const isOfThis = (line: Record<string, unknown>): boolean =>
        line["migrationId"] === id && String(line["msg"]).includes("dialling again");
      test.proxy.block(direction);
      await expect
        .poll(() => test.lab.source.log.some(isOfThis), {
          timeout: 2 * SILENT_LINK_MS_MAX,
          interval: 50,
        })
        .toBe(true);
      expect(performance.now() - sinceMs).toBeLessThan(SILENT_LINK_MS_MAX);
      test.proxy.restore();
      await guest.until(id, ({ wire }) => wire.reconnects > 0);
      await guest.limitBandwidth(id, null);
      const { wire } = await expectArrives(guest, id);
      expect(wire.reconnects).toBe(1);
    },
  );

  it("survives a link that stands still for three seconds", async () => {
    const guest = await test.boot();
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 32 * MIB } });
    await guest.until(id, ({ ram }) => ram.sentBytes > 4 * MIB);
    test.proxy.block();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "pre-copy" });
    test.proxy.restore();
    expect(await test.lab.source.api.wait(id, 60_000)).toMatchObject({ phase: "completed" });
  });

  it("works over a link with a delay of 100 ms each way", async () => {
    const guest = await test.boot();
    test.proxy.delayMs = 100;
    const { result } = await expectMoves(guest, { limits: { downtimeMsMax: 2000 } });
    // STUNNED, PREPARED, TOKEN and TAKEN cross the link one after the other.
    expect(result!.downtimeMs).toBeGreaterThan(400);
  });
});

function withAnotherDigest(message: ControlMessage): ControlMessage {
  return { ...message, ramDigest: "0".repeat(64) } as ControlMessage;
}

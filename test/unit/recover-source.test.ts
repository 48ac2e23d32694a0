import { mkdir, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, test } from "vitest";
import { HeldSockets } from "@vmferry/block";
import type { GuestDisk } from "@vmferry/protocol";
import type { GivenBack } from "../../packages/agent/src/guests/disk-recovery-port.ts";
import { refuseUnfitImages } from "../../packages/agent/src/guests/image-marks.ts";
import { recoverGuests } from "../../packages/source-agent/src/session/recover-guests.ts";
import { SourceMigrations } from "../../packages/source-agent/src/session/source-migrations.ts";
import { EarlierGuest, GUEST, STUN, type EarlierOptions } from "./earlier-guest.ts";

let earlier: EarlierGuest<"source">;
afterEach(() => earlier.end());

async function recovered(
  options: EarlierOptions,
  prepare: () => Promise<void> = () => Promise.resolve(),
): Promise<SourceMigrations> {
  earlier = await EarlierGuest.make("source", options);
  await prepare();
  const migrations = new SourceMigrations({
    ...{ registry: earlier.registry, store: earlier.store, journals: earlier.journals },
    ...{ witness: null, peers: new Map(), logger: earlier.logger, clock: earlier.clock },
    identity: { software: "test", incarnation: randomUUID() },
    random: Math.random,
    sharedDir: null,
    memoryDir: memoryDir(),
    sockets: await HeldSockets.open({
      directory: earlier.directory,
      onTrouble: expect.unreachable,
    }),
    ...{ runDir: earlier.directory, imageDir: earlier.imageDir, bulkConnections: 1 },
  });
  await migrations.recover();
  return migrations;
}

function memoryDir(): string {
  return join(earlier.directory, "memory");
}

const disks: GuestDisk[] = [{ id: "disk0", image: "web1.raw", format: "raw", mode: "copy" }];

describe("a guest whose QEMU lives and does not answer", () => {
  test.each([["begin"], ["begin", "handed-off"], ["begin", "handed-off", "released"]])(
    "is in doubt, and so is its migration: %s",
    async (...records) => {
      await recovered({ records, qemu: "silent" });
      expect(earlier.registry.list()).toMatchObject([{ name: GUEST, state: "in-doubt" }]);
      expect(earlier.store.get(STUN.migrationId)).toMatchObject({
        phase: "in-doubt",
        error: { detail: expect.stringContaining("lives and does not answer") as string },
      });
      expect(earlier.qemuLives).toBe(true);
    },
    20_000,
  );

  test("is told to whoever would settle it, move it or end it", async () => {
    const migrations = await recovered({ records: ["begin", "handed-off"], qemu: "silent" });
    await expect(migrations.resolve(STUN.migrationId, "dest")).rejects.toMatchObject({
      ...{ code: "not-in-doubt", message: expect.stringContaining("does not answer") as string },
    });
    await expect(earlier.registry.powerOff(GUEST)).rejects.toMatchObject({
      code: "guest-in-doubt",
    });
    const definition = earlier.registry.get(GUEST);
    await expect(
      earlier.registry.launchIncoming({
        definition: { ...definition, boot: { kernel: "vmlinuz" } } as never,
        ...{ accel: "tcg", uuid: randomUUID(), epoch: 3 },
      }),
    ).rejects.toMatchObject({ code: "dest-guest-exists" });
  }, 20_000);

  test("is judged as soon as it is gone", async () => {
    await recovered({ records: ["begin"], qemu: "silent" });
    await earlier.killQemu();
    await expect
      .poll(() => earlier.store.get(STUN.migrationId), { timeout: 10_000 })
      .toMatchObject({ phase: "failed", error: { code: "agent-stopped" } });
    expect(earlier.store.get(STUN.migrationId).error?.detail).toContain("QEMU is gone as well");
    expect(earlier.registry.list()).toEqual([]);
  }, 20_000);
});

describe("what an agent stood between", () => {
  test.each([
    [["begin"], ["reopen", "look"]],
    [[], ["reopen", "look"]],
    [["begin", "handed-off"], ["look"]],
  ])("is opened before QEMU is asked, unless it was given away: %s", async (records, order) => {
    const log: string[] = [];
    const note = (what: string) => (): Promise<void> => {
      log.push(what);
      return Promise.resolve();
    };
    const giveBack = (): Promise<GivenBack> => Promise.resolve("nothing");
    const diskRecovery = { reopen: note("reopen"), giveBack, forget: note("forget") };
    earlier = await EarlierGuest.make("source", { records, qemu: "gone", diskRecovery });
    const { registry } = earlier;
    const look = registry.look.bind(registry);
    registry.look = async (record) => {
      log.push("look");
      return look(record);
    };
    const { store, journals, imageDir, clock, logger } = earlier;
    const ports = { registry, store, journals, imageDir, clock, logger, witness: null };
    const left = await recoverGuests(ports, () => undefined);
    for (const one of left) await one.ports.closeJournal();
    expect(log).toEqual([...order, "forget"]);
  });
});

describe("images that a guest has left whose QEMU is gone", () => {
  test("may be started from when a person gives it back", async () => {
    const records = ["begin", "handed-off"];
    const migrations = await recovered({ records, image: "left", qemu: "gone" });
    await expect(refuseUnfitImages(disks, earlier.imageDir)).rejects.toMatchObject({
      code: "image-handed-off",
    });
    await migrations.resolve(STUN.migrationId, "source");
    await earlier.store.wait(STUN.migrationId, 5000);
    await refuseUnfitImages(disks, earlier.imageDir);
  });

  test("may be started from when the last life recorded that it came back, and no more", async () => {
    const records = ["begin", "handed-off", "reclaimed"];
    await recovered({ records, image: "left", qemu: "gone" });
    await refuseUnfitImages(disks, earlier.imageDir);
  });

  test("may not where its journal is lost", async () => {
    await recovered({ image: "left", qemu: "gone" });
    await expect(refuseUnfitImages(disks, earlier.imageDir)).rejects.toMatchObject({
      code: "image-handed-off",
    });
  });
});

describe("what is kept here of a guest that was handed over", () => {
  const { migrationId: id } = STUN;
  const names = [`${id}.disks.json`, `${id}.pages`, `${id}.pages.index`];
  const records = ["begin", "handed-off"];

  /** As of a hand-over that is so many days past. */
  async function keepRest(days: number): Promise<void> {
    await mkdir(memoryDir());
    const then = Date.now() / 1000 - days * 86_400;
    for (const name of names) {
      await writeFile(join(memoryDir(), name), "");
      await utimes(join(memoryDir(), name), then, then);
    }
  }

  test.each([[["begin"]], [records], [[...records, "released"]]])(
    "stays while the hand-over is open, however old it is: %s",
    async (kinds) => {
      await recovered({ records: kinds, qemu: "silent" }, () => keepRest(400));
      expect(await readdir(memoryDir())).toEqual(names);
    },
  );

  test("stays while a journal cannot be read", async () => {
    await recovered({ records, qemu: "gone" }, async () => {
      await keepRest(400);
      const journals = join(earlier.directory, "../../journals");
      const path = join(journals, (await readdir(journals))[0]!);
      const bytes = await readFile(path);
      bytes[300]! ^= 1;
      await writeFile(path, bytes);
    });
    expect(await readdir(memoryDir())).toEqual(names);
  });

  test.each([
    [29, names],
    [31, []],
  ])("goes a month after it where no journal tells of it: %s days", async (days, left) => {
    await recovered({ qemu: "gone" }, () => keepRest(days));
    expect(await readdir(memoryDir())).toEqual(left);
  });

  test("stays where its age cannot be told", async () => {
    const index = join("memory", names[2]!);
    await recovered({ qemu: "gone" }, async () => {
      await keepRest(1);
      await rm(join(earlier.directory, index));
      await symlink(names[2]!, join(earlier.directory, index));
    });
    expect(await readdir(memoryDir())).toEqual(names);
  });
});

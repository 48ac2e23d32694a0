import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { removeVoidImages } from "../../packages/agent/src/index.ts";
import { DestSessions } from "../../packages/dest-agent/src/session/dest-sessions.ts";
import { EarlierGuest, GUEST, STUN, type EarlierOptions } from "./earlier-guest.ts";

let earlier: EarlierGuest<"dest">;
afterEach(() => earlier.end());

/** As the dest agent starts. */
async function recover(): Promise<DestSessions> {
  const { imageDir, logger, clock, journals, registry, store } = earlier;
  const sessions = new DestSessions({
    ...{ store, witness: null, sharedDir: null, journals, logger, clock, software: "test" },
    incarnation: randomUUID(),
    ...{ guestsDir: registry.guestsDir, runDir: "run", onPageFault: () => undefined },
    answerProbe: () => Promise.reject(new Error("nobody asks")),
    openReception: () => Promise.reject(new Error("nothing arrives")),
  });
  const active = await sessions.recover({
    ...{ registry, journals, imageDir },
    takeUp: () => Promise.resolve([]),
    takeUpDisks: () => Promise.resolve([]),
  });
  const prepared = registry.preparedImages();
  if (active !== null) await removeVoidImages({ imageDir, active, prepared, logger });
  return sessions;
}

async function recovered(options: EarlierOptions): Promise<DestSessions> {
  earlier = await EarlierGuest.make("dest", options);
  return recover();
}

describe("a guest that arrived, whose QEMU is gone and whose journal is lost", () => {
  test("keeps an image that is whole, and a person is asked", async () => {
    const sessions = await recovered({ image: "whole", qemu: "gone" });
    expect(earlier.imageIsThere).toBe(true);
    const { migrations } = earlier.store.list({ limit: 10 });
    expect(migrations).toMatchObject([{ guest: GUEST, phase: "in-doubt" }]);
    await sessions.resolve(migrations[0]!.id, "source");
    await expect.poll(() => earlier.imageIsThere).toBe(false);
  });

  test("loses an image that was not whole, for nobody can own it", async () => {
    await recovered({ image: "filling", qemu: "gone" });
    await expect.poll(() => earlier.imageIsThere).toBe(false);
  });
});

test.each(["whole", "filling"] as const)(
  "an image is kept while the journal of its guest cannot be read: %s",
  async (image) => {
    const records = ["reserved", "prepared", "taken"];
    earlier = await EarlierGuest.make("dest", { records, image, qemu: "gone" });
    const journals = join(earlier.directory, "../../journals");
    const path = join(journals, readdirSync(journals)[0]!);
    const bytes = readFileSync(path);
    bytes[300]! ^= 1;
    writeFileSync(path, bytes);
    await recover();
    expect(earlier.imageIsThere).toBe(true);
  },
);

test("a QEMU that was prepared waits on over its image, which was to be filled and never was", async () => {
  await recovered({ image: "filling", qemu: "prepared" });
  expect(earlier.registry.list()).toMatchObject([{ name: GUEST, state: "incoming", epoch: 0 }]);
  expect([earlier.imageIsThere, earlier.qemuLives]).toEqual([true, true]);
  expect(existsSync(`${earlier.imagePath}.vmferry`)).toBe(false);
});

describe("a guest whose QEMU lives and does not answer", () => {
  test.each([["reserved"], ["reserved", "prepared"], ["reserved", "prepared", "taken"]])(
    "is in doubt, and nothing of it is refused or removed: %s",
    async (...records) => {
      const sessions = await recovered({ records, image: "filling", qemu: "silent" });
      expect(earlier.registry.list()).toMatchObject([{ name: GUEST, state: "in-doubt" }]);
      expect(earlier.store.get(STUN.migrationId)).toMatchObject({ phase: "in-doubt" });
      expect([earlier.imageIsThere, earlier.qemuLives]).toEqual([true, true]);
      await expect(sessions.resolve(STUN.migrationId, "dest")).rejects.toMatchObject({
        ...{ code: "not-in-doubt", message: expect.stringContaining("does not answer") as string },
      });
    },
    20_000,
  );

  test("is judged as soon as it is gone", async () => {
    await recovered({ records: ["reserved", "prepared"], image: "filling", qemu: "silent" });
    await earlier.killQemu();
    await expect
      .poll(() => earlier.store.get(STUN.migrationId), { timeout: 10_000 })
      .toMatchObject({ phase: "failed", error: { code: "dest-qemu-died" } });
    await expect.poll(() => earlier.imageIsThere).toBe(false);
  }, 20_000);

  test("is left alone where its record cannot be read", async () => {
    await recoverUnreadable("silent");
    expect(earlier.store.list({ limit: 10 }).migrations).toEqual([]);
    expect([earlier.imageIsThere, earlier.qemuLives]).toEqual([true, true]);
  });
});

/** With a hand-over that is not over, and an image that is not whole. */
async function recoverUnreadable(qemu: EarlierOptions["qemu"]): Promise<DestSessions> {
  earlier = await EarlierGuest.make("dest", {
    ...{ records: ["reserved", "prepared"], image: "filling", qemu },
  });
  writeFileSync(join(earlier.directory, "guest.json"), "{}");
  return recover();
}

// Of one that somebody else started nothing else tells which process it is, so that it may live.
describe.each(["prepared", "gone"] as const)(
  "a guest whose record cannot be read and whose QEMU is not found (%s)",
  (qemu) => {
    test("is not judged, and nothing of it is refused or removed", async () => {
      await recoverUnreadable(qemu);
      expect(earlier.store.list({ limit: 10 }).migrations).toEqual([]);
      expect([earlier.imageIsThere, earlier.qemuLives]).toEqual([true, qemu === "prepared"]);
      expect(existsSync(join(earlier.directory, "guest.json"))).toBe(true);
    });

    test("is shown as in doubt, keeps its name, and whoever asks for it is told", async () => {
      await recoverUnreadable(qemu);
      const { registry, directory } = earlier;
      expect(registry.list()).toMatchObject([{ name: GUEST, state: "in-doubt", pid: null }]);
      expect(registry.get(GUEST)).toEqual(registry.list()[0]);
      await expect(registry.powerOff(GUEST)).rejects.toMatchObject({
        code: "guest-in-doubt",
        message: expect.stringContaining(join(directory, "guest.json")) as string,
      });
      expect(() => {
        registry.refuseName(GUEST, "dest-guest-exists");
      }).toThrow(`There is a guest ${GUEST} on this host.`);
    });
  },
);

test("a QEMU behind a relay is not taken for the one that was prepared", async () => {
  await recovered({ records: ["reserved", "prepared"], image: "filling", qemu: "relayed" });
  expect(earlier.registry.list()).toMatchObject([{ name: GUEST, state: "in-doubt" }]);
  expect(() => earlier.registry.find(GUEST)).toThrow("a relay");
  expect(earlier.store.get(STUN.migrationId)).toMatchObject({ phase: "in-doubt" });
  expect([earlier.imageIsThere, earlier.qemuLives]).toEqual([true, true]);
});

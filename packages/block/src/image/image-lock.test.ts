import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ImageFile } from "./image-file.ts";
import { lockImage, lockImageStill } from "./image-lock.ts";

let directory: string;
let first: ImageFile;
let second: ImageFile;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "lock-"));
  const path = join(directory, "disk.raw");
  await writeFile(path, "x");
  first = await ImageFile.open(path);
  second = await ImageFile.open(path);
});

afterEach(async () => {
  await first.close();
  await second.close();
  await rm(directory, { recursive: true });
});

const refused = { detail: { code: "image-locked", permission: "write" } };

describe("lockImage", () => {
  it("has one holder, whoever in this process opened the image", async () => {
    await lockImage(first);
    await expect(lockImage(second)).rejects.toMatchObject(refused);
  });

  it("leaves nothing behind where it is refused", async () => {
    const lock = await lockImage(first);
    await expect(lockImage(second)).rejects.toMatchObject(refused);
    await lock.unlock();
    await lockImage(first);
  });

  it("lets another one in after the unlock, and after the close", async () => {
    const lock = await lockImage(first);
    await lock.unlock();
    await lockImage(second);
    await second.close();
    await lockImage(first);
  });

  it("has nothing to unlock after the close", async () => {
    const lock = await lockImage(first);
    await first.close();
    await lock.unlock();
    await expect(lockImage(first)).rejects.toMatchObject({ detail: { errno: "ESHUTDOWN" } });
  });

  it("is also had by one that is open for reading only", async () => {
    const reader = await ImageFile.open(first.path, { readOnly: true });
    await lockImage(reader);
    await expect(lockImage(second)).rejects.toMatchObject(refused);
    await reader.close();
  });

  it("is never had by two that come at once", async () => {
    for (let round = 0; round < 50; round++) {
      const outcomes = await Promise.allSettled([lockImage(first), lockImage(second)]);
      const locks = outcomes.flatMap((outcome) =>
        outcome.status === "fulfilled" ? [outcome.value] : [],
      );
      expect(locks.length).toBeLessThanOrEqual(1);
      for (const lock of locks) await lock.unlock();
    }
  });
});

describe("lockImageStill", () => {
  it("keeps a writer out until the image is closed, and no other that keeps it still", async () => {
    await lockImageStill(first);
    const third = await ImageFile.open(first.path, { readOnly: true });
    await lockImageStill(third);
    await expect(lockImage(second)).rejects.toMatchObject(refused);
    await first.close();
    await expect(lockImage(second)).rejects.toMatchObject(refused);
    await third.close();
    await lockImage(second);
  });

  it("is refused while somebody writes, and leaves nothing behind then", async () => {
    const lock = await lockImage(second);
    await expect(lockImageStill(first)).rejects.toMatchObject(refused);
    await lock.unlock();
    await lockImage(second);
  });
});

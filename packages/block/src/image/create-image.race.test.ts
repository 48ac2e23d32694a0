import { mkdtemp, readdir, readFile, rename, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createImage } from "./create-image.ts";
import type * as ImageLock from "./image-lock.ts";

/* What others do with the file between its opening and its locking. */

const race = vi.hoisted(() => ({ beforeLock: (): Promise<void> => Promise.resolve() }));

vi.mock("./image-lock.ts", async (importOriginal) => {
  const original = await importOriginal<typeof ImageLock>();
  return {
    ...original,
    lockDescriptor: async (fd: number, path: string): Promise<void> => {
      await race.beforeLock();
      await original.lockDescriptor(fd, path);
    },
  };
});

let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "race-"));
  path = join(directory, "disk.raw");
});
afterEach(() => rm(directory, { recursive: true }));

function create(): Promise<unknown> {
  return createImage({
    directory,
    name: "disk.raw",
    sizeBytes: 2 ** 20,
    needBytes: 0,
    mark: { blockBytes: 65_536, migrationId: "m1", epoch: 1 },
  });
}

describe("createImage, when the file changes before it is locked", () => {
  it("takes no file that has lost its name", async () => {
    race.beforeLock = () => unlink(path);
    await expect(create()).rejects.toMatchObject({ code: "image-not-usable" });
    expect(await readdir(directory)).toEqual([]);
  });

  it("takes no file whose name another one has, and leaves that one alone", async () => {
    race.beforeLock = async () => {
      await rename(path, join(directory, "elsewhere"));
      await writeFile(path, "precious");
    };
    await expect(create()).rejects.toMatchObject({ code: "image-not-usable" });
    expect(await readFile(path, "utf8")).toBe("precious");
    expect((await readdir(directory)).sort()).toEqual(["disk.raw", "elsewhere"]);
  });

  it("empties no file that another one has filled", async () => {
    race.beforeLock = () => writeFile(path, "precious");
    await expect(create()).rejects.toMatchObject({ code: "image-exists" });
    expect(await readFile(path, "utf8")).toBe("precious");
  });
});

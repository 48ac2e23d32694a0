import { mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type * as Block from "@vmferry/block";
import { FileStorage } from "./file-storage.ts";

/* What others do with the file between two steps, and which steps make its name durable. */

interface Race {
  beforeLock: () => Promise<void>;
  onSync: (directory: string) => Promise<void>;
}

const race = vi.hoisted((): Race => ({
  beforeLock: () => Promise.resolve(),
  onSync: () => Promise.resolve(),
}));

vi.mock("@vmferry/block", async (importOriginal) => {
  const original = await importOriginal<typeof Block>();
  return {
    ...original,
    lockExclusively: async (fd: number): Promise<boolean> => {
      await race.beforeLock();
      return original.lockExclusively(fd);
    },
    syncDirectory: async (directory: string): Promise<void> => {
      await race.onSync(directory);
      await original.syncDirectory(directory);
    },
  };
});

const BYTES = Buffer.from("the bytes of a journal");

let directory: string;
let path: string;
let storage: FileStorage;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-race-"));
  path = join(directory, "web1.journal");
  storage = new FileStorage(path);
  race.beforeLock = () => Promise.resolve();
  race.onSync = () => Promise.resolve();
});
afterEach(() => rm(directory, { recursive: true }));

/** The first of the locks to come finds this done. */
function onceBeforeLock(act: () => Promise<void>): void {
  race.beforeLock = async () => {
    race.beforeLock = () => Promise.resolve();
    await act();
  };
}

describe("a journal whose file changes before it is locked", () => {
  test("is the one that has its name by then", async () => {
    await writeFile(path, "before");
    onceBeforeLock(async () => {
      await writeFile(`${path}.other`, "rewritten by another agent");
      await rename(`${path}.other`, path);
    });
    const file = (await storage.open())!;
    expect((await file.read()).toString()).toBe("rewritten by another agent");
    await file.close();
  });

  test("is none where it lost its name", async () => {
    await writeFile(path, "before");
    onceBeforeLock(() => rm(path));
    expect(await storage.open()).toBeNull();
  });

  test("is somebody else's where that goes on", async () => {
    await writeFile(path, "before");
    race.beforeLock = async () => {
      await writeFile(`${path}.other`, "again");
      await rename(`${path}.other`, path);
    };
    await expect(storage.open()).rejects.toMatchObject({ code: "journal-locked" });
  });
});

describe("a journal that is being made", () => {
  test("gives way to one that came before it got its name", async () => {
    onceBeforeLock(() => writeFile(path, "another"));
    expect(await storage.create(BYTES)).toBeNull();
    expect(await readFile(path, "utf8")).toBe("another");
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });

  test("gives way where somebody took it for a leftover", async () => {
    onceBeforeLock(async () => {
      for (const name of await readdir(directory)) await rm(join(directory, name));
    });
    expect(await storage.create(BYTES)).toBeNull();
    expect(await readdir(directory)).toEqual([]);
  });
});

describe("the name of a journal", () => {
  test("is made durable by its maker, by whoever finds it, and when it changes hands", async () => {
    const seen: string[] = [];
    race.onSync = async (synced) => {
      expect(synced).toBe(directory);
      seen.push(await readFile(path, "utf8"));
    };
    const made = (await storage.create(BYTES))!;
    expect(seen).toEqual([BYTES.toString()]);
    const replaced = await storage.replace(Buffer.from("shorter"));
    expect(seen).toEqual([BYTES.toString(), "shorter"]);
    await made.close();
    await replaced.close();
    const found = (await storage.open())!;
    expect(seen).toEqual([BYTES.toString(), "shorter", "shorter"]);
    await found.close();
  });

  test("that may not be durable is no success, and the journal is not held", async () => {
    race.onSync = () => Promise.reject(new Error("EIO"));
    const notUsable = { code: "journal-not-usable" };
    await expect(storage.create(BYTES)).rejects.toMatchObject(notUsable);
    await expect(storage.open()).rejects.toMatchObject(notUsable);
    await expect(storage.replace(Buffer.from("shorter"))).rejects.toMatchObject(notUsable);
    race.onSync = () => Promise.resolve();
    const file = (await storage.open())!;
    expect((await file.read()).toString()).toBe("shorter");
    await file.close();
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });
});

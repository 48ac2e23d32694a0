import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import {
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FileStorage } from "./file-storage.ts";
import type { StoredJournal } from "./journal-storage.ts";

const BYTES = Buffer.from("the bytes of a journal");
const locked = { code: "journal-locked" };
const notUsable = { code: "journal-not-usable" };

let directory: string;
let path: string;
let storage: FileStorage;
let files: StoredJournal[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-journal-"));
  path = join(directory, "web1.journal");
  storage = new FileStorage(path);
  files = [];
});
afterEach(async () => {
  for (const file of files) await file.close();
  await rm(directory, { recursive: true });
});

/** Closed at the end of the test, unless that was done before. */
async function kept(file: Promise<StoredJournal | null>): Promise<StoredJournal> {
  const opened = (await file)!;
  files.push(opened);
  return opened;
}

async function close(file: StoredJournal): Promise<void> {
  files.splice(files.indexOf(file), 1);
  await file.close();
}

/** Another process that holds the journal. */
async function holder(): Promise<ChildProcessWithoutNullStreams> {
  const script = `
    import { FileStorage } from ${JSON.stringify(join(import.meta.dirname, "file-storage.ts"))};
    await new FileStorage(${JSON.stringify(path)}).open();
    process.stdout.write("held");
    process.stdin.resume();
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
  await once(child.stdout, "data");
  return child;
}

describe("a new journal", () => {
  test("is for its user alone, and nothing else is left beside it", async () => {
    const file = await kept(storage.create(BYTES));
    expect(file.sizeBytes).toBe(BYTES.length);
    expect(await file.read()).toEqual(BYTES);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });

  test("is locked from the beginning", async () => {
    await kept(storage.create(BYTES));
    await expect(storage.open()).rejects.toMatchObject(locked);
  });

  test("is not made where there is one, and that one stays as it is", async () => {
    await writeFile(path, "another");
    expect(await storage.create(BYTES)).toBeNull();
    expect(await readFile(path, "utf8")).toBe("another");
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });

  test("is made by one of many that try at once", async () => {
    const made = await Promise.all(
      Array.from({ length: 8 }, () => new FileStorage(path).create(BYTES)),
    );
    files = made.filter((file) => file !== null);
    expect(files.length).toBe(1);
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });

  test("is not made in a directory that is not there", async () => {
    const lost = new FileStorage(join(directory, "missing", "web1.journal"));
    expect(await lost.open()).toBeNull();
    await expect(lost.create(BYTES)).rejects.toMatchObject(notUsable);
  });
});

describe("a journal that is there", () => {
  test("is opened, read, written and cut", async () => {
    await writeFile(path, BYTES);
    const file = await kept(storage.open());
    expect(file.sizeBytes).toBe(BYTES.length);
    await file.write(Buffer.from("more"), BYTES.length);
    await file.datasync();
    expect(await readFile(path, "utf8")).toBe(`${BYTES.toString()}more`);
    await file.truncate(3);
    await file.datasync();
    expect(await readFile(path, "utf8")).toBe("the");
  });

  test("is none where there is nothing", async () => {
    expect(await storage.open()).toBeNull();
    expect(await readdir(directory)).toEqual([]);
  });

  test("has whatever a crash left beside it removed, and nothing else", async () => {
    for (const name of ["web1.journal", "web1.journal.1b4e28ba.new", "web11.journal.x.new"]) {
      await writeFile(join(directory, name), BYTES);
    }
    await link(path, join(directory, "web1.journal.made-but-not-unlinked.new"));
    await kept(storage.open());
    expect((await readdir(directory)).sort()).toEqual(["web1.journal", "web11.journal.x.new"]);
    expect(await readFile(path)).toEqual(BYTES);
  });

  test("is refused where it is no regular file", async () => {
    await writeFile(join(directory, "precious"), "precious");
    for (const make of [() => symlink("precious", path), () => mkdir(path)]) {
      await make();
      await expect(storage.open()).rejects.toMatchObject(notUsable);
      await rm(path, { recursive: true });
    }
    expect(await readFile(join(directory, "precious"), "utf8")).toBe("precious");
  });

  test("is refused where it is another user's", async () => {
    await writeFile(path, BYTES);
    const { uid } = await stat(path);
    vi.spyOn(process, "geteuid").mockReturnValueOnce(uid + 1);
    await expect(storage.open()).rejects.toMatchObject(notUsable);
    await kept(storage.open());
  });

  test("is refused where it becomes shorter while it is read", async () => {
    await writeFile(path, BYTES);
    const file = await kept(storage.open());
    await writeFile(path, "");
    await expect(file.read()).rejects.toThrow("became shorter");
  });
});

describe("the lock of a journal", () => {
  test("keeps another process out until that one ends, however it ends", async () => {
    await writeFile(path, BYTES);
    const child = await holder();
    await expect(storage.open()).rejects.toMatchObject(locked);
    await expect(storage.open()).rejects.toThrow("another agent has it open");
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await (await kept(storage.open())).read()).toEqual(BYTES);
  });

  test("ends with a close, and not with the close of somebody who did not get it", async () => {
    const file = await kept(storage.create(BYTES));
    for (let i = 0; i < 3; i++) await expect(storage.open()).rejects.toMatchObject(locked);
    await close(file);
    await kept(storage.open());
  });

  test("is not that of a file which had the name before", async () => {
    const file = await kept(storage.create(BYTES));
    await rename(path, join(directory, "moved"));
    await writeFile(path, "another");
    const other = await kept(storage.open());
    expect((await other.read()).toString()).toBe("another");
    expect(await file.read()).toEqual(BYTES);
  });
});

describe("a journal that replaces another", () => {
  test("has its name and is locked, while the other one is open still", async () => {
    const before = await kept(storage.create(BYTES));
    const after = await kept(storage.replace(Buffer.from("shorter")));
    expect(await readFile(path, "utf8")).toBe("shorter");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(directory)).toEqual(["web1.journal"]);
    await expect(storage.open()).rejects.toMatchObject(locked);
    await close(before);
    await expect(storage.open()).rejects.toMatchObject(locked);
    expect(await after.read()).toEqual(Buffer.from("shorter"));
  });

  test("is never seen by others as anything but one of the two, nor without a lock", async () => {
    let file = await kept(storage.create(BYTES));
    const opened: unknown[] = [];
    const done = new AbortController();
    const watcher = (async () => {
      while (!done.signal.aborted) {
        await storage.open().then(
          (other) => opened.push(other),
          (error: unknown) => {
            expect(error).toMatchObject(locked);
          },
        );
      }
    })();
    for (let i = 0; i < 30; i++) {
      const next = await kept(storage.replace(BYTES));
      await close(file);
      file = next;
    }
    done.abort();
    await watcher;
    expect(opened).toEqual([]);
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });

  test("leaves the other one where it cannot take its place", async () => {
    await mkdir(path);
    await writeFile(join(path, "precious"), "");
    await expect(storage.replace(BYTES)).rejects.toMatchObject(notUsable);
    expect(await readdir(directory)).toEqual(["web1.journal"]);
  });
});

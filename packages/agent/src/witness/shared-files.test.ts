import { mkdtemp, open, readFile, rm, symlink, writeFile, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SharedFiles } from "./shared-files.ts";

const files = new SharedFiles();
let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-files-"));
  path = join(directory, "file");
});
afterEach(() => rm(directory, { recursive: true }));

test("a file is made once, and is durable then", async () => {
  const handle = await open(directory);
  const sync = vi.spyOn(Object.getPrototypeOf(handle) as FileHandle, "sync");
  await handle.close();
  await files.create(path, Buffer.from("first"));
  expect(sync).toHaveBeenCalledOnce();
  await expect(files.create(path, Buffer.from("second"))).rejects.toThrow("EEXIST");
  expect(await readFile(path, "utf8")).toBe("first");
});

test("a file is read up to its limit, and refused beyond", async () => {
  await writeFile(path, "1234");
  expect((await files.read(path, 4))?.toString()).toBe("1234");
  await expect(files.read(path, 3)).rejects.toMatchObject({ code: "witness-damaged" });
  expect(await files.read(join(directory, "missing"), 4)).toBeNull();
});

test("what a name leads to is told as it is, and not followed", async () => {
  await symlink("missing", path);
  expect(await files.inspect(path)).toMatchObject({ kind: "other" });
  expect(await files.inspect(directory)).toMatchObject({ kind: "directory", mode: 0o700 });
  await files.remove(path);
  expect(await files.inspect(path)).toBeNull();
  await files.create(path, Buffer.alloc(0));
  expect(await files.inspect(path)).toMatchObject({ kind: "file", linkCount: 1, mode: 0o600 });
  await files.link(path, join(directory, "second"));
  expect(await files.inspect(path)).toMatchObject({ linkCount: 2 });
});

test("a directory that is there is left as it is", async () => {
  await files.makeDirectory(directory);
  await expect(files.makeDirectory(join(path, "deeper"))).rejects.toThrow("ENOENT");
});

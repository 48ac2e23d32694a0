import { mkdtemp, open, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockExclusively } from "./exclusive-lock.ts";
import { setOfdLock } from "./libc.ts";

let directory: string;
let path: string;
let first: FileHandle;
let second: FileHandle;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "exclusive-"));
  path = join(directory, "file");
  first = await open(path, "w+");
  second = await open(path, "r+");
});
afterEach(async () => {
  await Promise.all([first.close(), second.close()]);
  await rm(directory, { recursive: true });
});

describe("lockExclusively", () => {
  it("keeps every other open file out, and may be asked for again by its holder", async () => {
    expect(await lockExclusively(first.fd)).toBe(true);
    expect(await lockExclusively(second.fd)).toBe(false);
    expect(await lockExclusively(first.fd)).toBe(true);
  });

  it("covers what the file grows to", async () => {
    await lockExclusively(first.fd);
    await first.truncate(2 ** 33);
    const far = setOfdLock(second.fd, "read", { offset: 2 ** 32, length: 1 });
    await expect(far).rejects.toMatchObject({ code: "EAGAIN" });
  });

  it("gives way to any lock of another, be it for reading", async () => {
    await setOfdLock(second.fd, "read", { offset: 7, length: 1 });
    expect(await lockExclusively(first.fd)).toBe(false);
    await setOfdLock(second.fd, "none", { offset: 7, length: 1 });
    expect(await lockExclusively(first.fd)).toBe(true);
  });

  it("ends with its own open file, and not with another one's", async () => {
    await lockExclusively(first.fd);
    const third = await open(path, "r+");
    await third.close();
    expect(await lockExclusively(second.fd)).toBe(false);
    await first.close();
    expect(await lockExclusively(second.fd)).toBe(true);
  });

  it("rejects what cannot be locked", async () => {
    const reader = await open(path, "r");
    await expect(lockExclusively(reader.fd)).rejects.toMatchObject({ code: "EBADF" });
    await reader.close();
  });
});

import { closeSync, openSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openCachedRead, type CachedRead } from "./cached-read.ts";

let directory: string;
let fd: number;
let read: CachedRead;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-cached-"));
  const path = join(directory, "file");
  await writeFile(path, Buffer.alloc(10_000, "0123456789"));
  fd = openSync(path, "r");
  read = await openCachedRead();
});

afterEach(async () => {
  closeSync(fd);
  await rm(directory, { recursive: true });
});

describe("a read of what is in the cache", () => {
  it("fills the buffer it is given, which may be a part of another", () => {
    const whole = Buffer.alloc(100, ".");
    const into = whole.subarray(10, 20);
    expect(read(fd, into, 4003)).toBe(10);
    expect(whole.toString()).toBe(`${".".repeat(10)}3456789012${".".repeat(80)}`);
  });

  it("fills what there is before the end of the file, and nothing behind it", () => {
    const into = Buffer.alloc(100, ".");
    expect(read(fd, into, 9995)).toBe(5);
    expect(into.toString("latin1", 0, 6)).toBe("56789.");
    expect(read(fd, into, 10_000)).toBe(0);
    expect(read(fd, into, 2 ** 40)).toBe(0);
  });

  it("fills nothing where the file cannot be read, which the read that waits will tell", () => {
    expect(read(999_999, Buffer.alloc(10), 0)).toBe(0);
  });

  it("has many buffers, one after another, each with its own bytes", () => {
    const buffers = Array.from({ length: 1000 }, () => Buffer.allocUnsafe(7));
    for (const [i, buffer] of buffers.entries()) expect(read(fd, buffer, i * 10)).toBe(7);
    expect(new Set(buffers.map(String))).toEqual(new Set(["0123456"]));
  });
});

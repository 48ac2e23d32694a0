import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdtemp,
  open,
  readdir,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
  type FileHandle,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { PageFileReader } from "./page-file-reader.ts";
import { PageFileWriter } from "./page-file-writer.ts";
import { cleanPageFiles, pageFilePath, removePageFile } from "./page-file-place.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { ManualClock } from "../events/manual-clock.ts";
import { hangNext, SAMPLE_SECRET, SAMPLE_SUBJECT, samplePage } from "./sample-page-file.ts";
import { SharedPageFiles } from "./shared-page-files.ts";

vi.setConfig({ testTimeout: 60_000 });

const PAGES = 20_000;
const subject = {
  ...SAMPLE_SUBJECT,
  blocks: [{ name: "pc.ram", lengthBytes: PAGES * PAGE_BYTES }],
};
const secret = SAMPLE_SECRET;

let sharedDir: string;
let path: string;

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  path = pageFilePath(sharedDir, subject);
});
afterEach(() => rm(sharedDir, { recursive: true, force: true }));

test("a file is its user's alone, in a directory that is, and goes without a trace", async () => {
  const writer = await PageFileWriter.create(path, subject, { secret });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect((await stat(join(sharedDir, "vmferry-pages"))).mode & 0o777).toBe(0o700);
  writer.add(1, samplePage(1));
  await writer.close({ complete: true });
  await removePageFile(path);
  await removePageFile(path);
  expect(await readdir(join(sharedDir, "vmferry-pages"))).toEqual([]);
});

test("nothing of a page can be found in the file", async () => {
  const writer = await PageFileWriter.create(path, subject, { secret });
  const needle = Buffer.from("what the guest must keep to itself");
  const page = Buffer.alloc(PAGE_BYTES);
  for (let at = 0; at + needle.length < PAGE_BYTES; at += needle.length) needle.copy(page, at);
  writer.add(1, page);
  await writer.close({ complete: true });
  const reader = await PageFileReader.open(path, subject, { secret });
  await reader.refresh();
  expect(await reader.read(1)).toEqual(page);
  await reader.close();
  const found = spawn("grep", ["-c", "keep to itself", path]);
  expect((await once(found, "exit"))[0]).toBe(1);
});

test("what is no regular file is not opened", async () => {
  const writer = await PageFileWriter.create(path, subject, { secret });
  await writer.close({ complete: true });
  const other = join(sharedDir, "other");
  await symlink(path, other);
  await expect(PageFileReader.open(other, subject, { secret })).rejects.toMatchObject({
    code: "page-file-missing",
  });
  execFileSync("mkfifo", [join(sharedDir, "fifo")]);
  const fifo = PageFileReader.open(join(sharedDir, "fifo"), subject, { secret });
  await expect(fifo).rejects.toMatchObject({ code: "page-file-missing" });
});

test("a huge file that is none is refused without being read", async () => {
  const huge = join(sharedDir, "huge");
  await writeFile(huge, "vmferryP");
  await truncate(huge, 2 ** 40);
  await expect(PageFileReader.open(huge, subject, { secret })).rejects.toMatchObject({
    code: "page-file-damaged",
  });
});

test("a file that is replaced or removed while it is read is noticed", async () => {
  const writer = await PageFileWriter.create(path, subject, { secret });
  writer.add(1, samplePage(1));
  await writer.flush();
  const reader = await PageFileReader.open(path, subject, { secret });
  await reader.refresh();
  await rm(path);
  await (await PageFileWriter.create(path, subject, { secret })).close({ complete: true });
  await expect(reader.refresh()).rejects.toMatchObject({ code: "page-file-replaced" });
  expect(await reader.read(1)).toEqual(samplePage(1));
  await Promise.all([reader.close(), writer.close({ complete: false })]);
});

test("what crashes left goes where its migration is over", async () => {
  expect(await cleanPageFiles(sharedDir, () => true)).toBe(0);
  for (const [migrationId, epoch] of [
    ["m1", 7],
    ["m1", 8],
    ["m2", 7],
  ] as const) {
    const file = pageFilePath(sharedDir, { migrationId, epoch });
    const whose = { ...subject, migrationId, epoch };
    await (await PageFileWriter.create(file, whose, { secret })).close({ complete: false });
  }
  await writeFile(join(sharedDir, "vmferry-pages", "other.txt"), "");
  const isOver = ({ migrationId, epoch }: { migrationId: string; epoch: number }): boolean =>
    migrationId === "m2" || epoch === 7;
  expect(await cleanPageFiles(sharedDir, isOver)).toBe(2);
  const names = (await readdir(join(sharedDir, "vmferry-pages"))).sort();
  expect(names).toEqual(["m1.8.pages", "other.txt"]);
});

test("removing is given up where the share hangs", async () => {
  const files = new MemoryPageFiles();
  const clock = new ManualClock();
  const { hangs } = hangNext(files, "remove");
  const removed = removePageFile(path, { files, clock });
  await hangs;
  clock.advance(5000);
  await expect(removed).rejects.toMatchObject({ code: "page-file-unreachable" });
});

test("it is durable when it is told to be, and its name as well", async () => {
  const files = new SharedPageFiles();
  const handle = await open(sharedDir);
  const sync = vi.spyOn(Object.getPrototypeOf(handle) as FileHandle, "sync");
  await handle.close();
  const file = await files.create(path);
  expect(sync).toHaveBeenCalledOnce();
  await expect(files.create(path)).rejects.toThrow("EEXIST");
  expect(await file.write(Buffer.from("1234"), 0)).toBe(4);
  await file.sync();
  expect(sync).toHaveBeenCalledTimes(2);
  await file.close();
  expect(await files.list(join(sharedDir, "vmferry-pages"), 5)).toEqual(["m1.7.pages"]);
});

describe("a writer that is killed", () => {
  /** Writes pages in their order, small batches, and prints how many of them are durable. */
  const script = `
    import { PageFileWriter } from ${JSON.stringify(join(import.meta.dirname, "page-file-writer.ts"))};
    import { samplePage } from ${JSON.stringify(join(import.meta.dirname, "sample-page-file.ts"))};
    const [path, subject, secretHex] = JSON.parse(process.argv[1]);
    const secret = Buffer.from(secretHex, "hex");
    const options = { secret, batchDataBytes: 16 * 4112, syncBytes: 3 * 16 * 4112 };
    const writer = await PageFileWriter.create(path, subject, options);
    let told = 0;
    for (let page = 0; page < ${PAGES}; page++) {
      if (!writer.add(page, samplePage(page % 64))) await writer.room();
      const { durablePages } = writer.progress;
      if (durablePages > told) console.log((told = durablePages));
    }
  `;

  test.each([1, 400, 2000])("after %i pages leaves those, and a reader goes on", async (after) => {
    const args = JSON.stringify([path, subject, secret.toString("hex")]);
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, args]);
    child.stderr.pipe(process.stderr);
    const exit = once(child, "exit");
    let reader: PageFileReader | null = null;
    let durablePages = 0;
    try {
      for await (const line of createInterface(child.stdout)) {
        durablePages = Number(line);
        reader ??= await PageFileReader.open(path, subject, { secret });
        if (durablePages >= after) child.kill("SIGKILL");
        else await reader.refresh();
      }
    } finally {
      child.kill("SIGKILL");
    }
    await exit;
    await reader!.refresh();
    expect(reader!.state.phase).toBe("growing");
    expect(reader!.state.dataPages).toBeGreaterThanOrEqual(durablePages);
    expect(await reader!.verify()).toBe(reader!.state.dataPages);
    for (let page = 0; page < reader!.state.dataPages; page += 37) {
      expect((await reader!.read(page)) as Buffer).toEqual(samplePage(page % 64));
    }
    expect(await reader!.read(PAGES - 1)).toBeNull();
    await reader!.close();
  });
});

// Mounting is for root alone; in CI it is root, and there the test is not left out.
const MAY_SKIP = process.geteuid?.() !== 0 && process.env["CI"] === undefined;

describe.skipIf(MAY_SKIP)("a share without space (needs root, to mount a tmpfs)", () => {
  beforeEach(() => {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", sharedDir]);
  });
  afterEach(() => {
    execFileSync("umount", [sharedDir]);
  });

  test("is told, and what had space stays readable", async () => {
    const writer = await PageFileWriter.create(path, subject, { secret });
    const written = async (): Promise<void> => {
      for (let page = 0; page < 6000; page++) {
        if (!writer.add(page, samplePage(page % 64))) await writer.room();
      }
    };
    const full = { code: "page-file-full" };
    await expect(written()).rejects.toMatchObject(full);
    await expect(writer.close({ complete: true })).rejects.toMatchObject(full);
    const reader = await PageFileReader.open(path, subject, { secret });
    await reader.refresh();
    const { dataPages, phase } = reader.state;
    expect(phase).toBe("growing");
    expect(dataPages).toBeGreaterThan(500);
    expect(await reader.verify()).toBe(dataPages);
    expect(await reader.read(dataPages - 1)).toEqual(samplePage((dataPages - 1) % 64));
    await reader.close();
    await removePageFile(path);
  });

  test("is told where not even the header has any", async () => {
    await writeFile(join(sharedDir, "filler"), Buffer.alloc(5 * 2 ** 20)).catch(() => undefined);
    await expect(PageFileWriter.create(path, subject, { secret })).rejects.toMatchObject({
      code: "page-file-full",
    });
    expect(await readdir(sharedDir)).not.toContain("m1.7.pages");
  });
});

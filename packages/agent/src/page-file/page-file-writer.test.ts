import { expect, test } from "vitest";
import { InvariantError } from "@vmferry/core";
import { ManualClock } from "../events/manual-clock.ts";
import { errnoError } from "../witness/errno-error.ts";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import {
  hangNext,
  SAMPLE_SUBJECT,
  samplePage,
  sampleReader,
  sampleWriter,
} from "./sample-page-file.ts";

/** Batches of two pages. */
const SMALL = { batchDataBytes: 2 * (PAGE_BYTES + 16) };

test("a batch is written when it is full, and what is durable is told", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, SMALL);
  const headerBytes = files.bytes!.length;
  expect(writer.add(3, samplePage(3))).toBe(true);
  await Promise.resolve();
  expect(files.bytes!.length).toBe(headerBytes);
  writer.add(5, samplePage(5));
  await writer.flush();
  expect(files.operations).toEqual(["create", "write", "sync", "write", "sync"]);
  expect(writer.progress).toMatchObject({ pages: 2, durablePages: 2, queuedBatches: 0 });
  expect(writer.progress.durableBytes).toBe(files.bytes!.length);
  await writer.close({ complete: false });
});

test("the complete-mark is written when everything is durable, and is made durable too", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, SMALL);
  writer.add(3, samplePage(3));
  await writer.addZeros(10, 20);
  const mark = await writer.close({ complete: true });
  const steps = ["create", "write", "sync", "write", "sync", "write", "sync", "closeWritten"];
  expect(files.operations).toEqual(steps);
  expect(mark).toMatchObject({ batches: 1, dataPages: 1, zeroPages: 20 });
  const reader = await sampleReader(files);
  await reader.refresh();
  expect(await reader.complete).toEqual(mark);
});

test("a record says what was synced before it", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, SMALL);
  const headerBytes = files.bytes!.length;
  const { hangs, goesOn } = hangNext(files, "write");
  for (let page = 0; page < 6; page++) writer.add(page, samplePage(page));
  await hangs;
  goesOn.resolve();
  await writer.close({ complete: true });
  const batchBytes = (files.bytes!.length - headerBytes - 112) / 3;
  const synced = [0, 1, 2, 3].map((i) =>
    Number(files.bytes!.readBigUInt64BE(headerBytes + i * batchBytes + 16)),
  );
  expect(synced).toEqual([headerBytes, headerBytes, headerBytes, files.bytes!.length - 112]);
});

test("zero pages cost an entry of the index", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files);
  const headerBytes = files.bytes!.length;
  await writer.addZeros(0, 64);
  await writer.close({ complete: true });
  expect(files.bytes!.length - headerBytes).toBe(32 + 16 + 16 + (32 + 64 + 16));
});

test("without memory for another batch, room is waited for", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, { ...SMALL, queueBytesMax: 1 });
  const { hangs, goesOn } = hangNext(files, "write");
  const added = [0, 1, 2, 3].map((page) => writer.add(page, samplePage(page)));
  expect(added).toEqual([true, true, true, false]);
  expect(() => writer.add(4, samplePage(4))).toThrow(InvariantError);
  await hangs;
  let hasRoom = false;
  const room = writer.room().then(() => (hasRoom = true));
  await new Promise(setImmediate);
  expect(hasRoom).toBe(false);
  goesOn.resolve();
  await room;
  expect(writer.add(4, samplePage(4))).toBe(true);
  await writer.close({ complete: true });
  const reader = await sampleReader(files);
  expect((await reader.refresh(), reader.state.dataPages)).toBe(5);
});

test("short writes are gone on with", async () => {
  const files = new MemoryPageFiles();
  files.onOperation = (operation) => (operation === "write" ? 100 : undefined);
  const writer = await sampleWriter(files, SMALL);
  for (const page of [1, 2, 3]) writer.add(page, samplePage(page));
  await writer.close({ complete: true });
  const reader = await sampleReader(files);
  await reader.refresh();
  expect(await reader.read(3)).toEqual(samplePage(3));
  expect(reader.state.phase).toBe("complete");
});

test("a file that takes nothing more has failed", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, SMALL);
  files.onOperation = () => 0;
  writer.add(1, samplePage(1));
  await expect(writer.flush()).rejects.toMatchObject({ code: "page-file-failed" });
});

test("a page comes once, and is one of the guest's", async () => {
  const writer = await sampleWriter(new MemoryPageFiles());
  writer.add(1, samplePage(1));
  expect(() => writer.add(1, samplePage(1))).toThrow(InvariantError);
  expect(() => writer.add(64, samplePage(1))).toThrow(InvariantError);
  expect(() => writer.add(2, Buffer.alloc(8))).toThrow(InvariantError);
  await expect(writer.addZeros(1, 1)).rejects.toThrow(InvariantError);
});

test("the whole of a guest is complete with every page only", async () => {
  const subject = { ...SAMPLE_SUBJECT, scope: "whole" as const };
  const some = await sampleWriter(new MemoryPageFiles(), {}, subject);
  await some.addZeros(0, 63);
  await expect(some.close({ complete: true })).rejects.toThrow(InvariantError);
  const files = new MemoryPageFiles();
  const all = await sampleWriter(files, {}, subject);
  await all.addZeros(0, 64);
  await all.close({ complete: true });
  const reader = await sampleReader(files, {}, subject);
  await reader.refresh();
  expect(reader.state.phase).toBe("complete");
});

test("one that is there is left as it is", async () => {
  const files = new MemoryPageFiles(Buffer.from("something"));
  await expect(sampleWriter(files)).rejects.toMatchObject({ code: "page-file-failed" });
  expect(files.bytes?.toString()).toBe("something");
});

const CODES = [
  ["ENOSPC", "page-file-full"],
  ["EDQUOT", "page-file-full"],
  ["EIO", "page-file-failed"],
  ["ESTALE", "page-file-unreachable"],
] as const;

/** Writes five pages; the failure of the writer is the one that it tells everybody. */
async function writeFive(files: MemoryPageFiles): Promise<void> {
  const writer = await sampleWriter(files, SMALL);
  try {
    for (const page of [1, 2, 3, 4, 5]) {
      if (!writer.add(page, samplePage(page))) await writer.room();
    }
    await writer.close({ complete: true });
  } catch (error) {
    expect(writer.failure).toBe(error);
    expect(writer.add(6, samplePage(6))).toBe(false);
    await expect(writer.room()).rejects.toBe(error);
    await expect(writer.flush()).rejects.toBe(error);
    await expect(writer.close({ complete: true })).rejects.toBe(error);
    throw error;
  }
}

test.each(CODES)("%s is told as %s, whichever call it is of", async (errno, code) => {
  const whole = new MemoryPageFiles();
  await writeFive(whole);
  const made = whole.operations.indexOf("sync") + 1;
  for (const [at, operation] of whole.operations.entries()) {
    const files = new MemoryPageFiles();
    files.onOperation = () => {
      if (files.operations.length === at + 1) throw errnoError(errno);
      return undefined;
    };
    if (operation === "closeWritten") {
      // What counts is durable by then.
      await writeFive(files);
      continue;
    }
    await expect(writeFive(files), `call ${at}`).rejects.toMatchObject({ code });
    const after = files.operations.slice(at + 1);
    if (at === 0) expect(after).toEqual([]);
    else expect(after).toEqual(at < made ? ["closeWritten", "remove"] : ["closeWritten"]);
  }
});

test("what failed while it is made is removed", async () => {
  const files = new MemoryPageFiles();
  files.onOperation = (operation) => {
    if (operation === "sync") throw errnoError("ENOSPC");
    return undefined;
  };
  await expect(sampleWriter(files)).rejects.toMatchObject({ code: "page-file-full" });
  expect(files.bytes).toBeNull();
});

test("what was written before a failure stays readable", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, SMALL);
  for (const page of [1, 2]) writer.add(page, samplePage(page));
  await writer.flush();
  files.onOperation = (operation) => {
    if (operation !== "write") return undefined;
    files.onOperation = () => {
      throw errnoError("ENOSPC");
    };
    return 1000;
  };
  for (const page of [3, 4]) writer.add(page, samplePage(page));
  await expect(writer.close({ complete: true })).rejects.toMatchObject({ code: "page-file-full" });
  files.onOperation = () => undefined;
  const reader = await sampleReader(files);
  await reader.refresh();
  expect(await reader.read(2)).toEqual(samplePage(2));
  expect(await reader.read(3)).toBeNull();
  expect(reader.state).toMatchObject({ phase: "growing", dataPages: 2 });
});

test.each(["write", "sync"] as const)("a share that hangs in %s is given up", async (operation) => {
  const files = new MemoryPageFiles();
  const clock = new ManualClock();
  const writer = await sampleWriter(files, { ...SMALL, clock, timeoutMs: 1000 });
  const { hangs, goesOn } = hangNext(files, operation);
  for (const page of [1, 2]) writer.add(page, samplePage(page));
  const flushed = writer.flush();
  await hangs;
  clock.advance(999);
  expect(writer.failure).toBeNull();
  clock.advance(1);
  await expect(flushed).rejects.toMatchObject({ code: "page-file-unreachable" });
  expect(writer.add(3, samplePage(3))).toBe(false);
  // Closing does not wait for ever either, and is done when the call ends after all.
  const closed = writer.close({ complete: false });
  await new Promise(setImmediate);
  clock.advance(1000);
  expect(await closed).toBeNull();
  const before = files.operations.length;
  goesOn.resolve();
  await new Promise(setImmediate);
  expect(files.operations.slice(before)).toEqual(["closeWritten"]);
  expect(clock.timerCount).toBe(0);
});

test("a short write that comes back late is not gone on with", async () => {
  const files = new MemoryPageFiles();
  const clock = new ManualClock();
  const writer = await sampleWriter(files, { ...SMALL, clock, timeoutMs: 1000 });
  const { hangs, goesOn } = hangNext(files, "write");
  const ever = files.onOperation;
  files.onOperation = async (operation) => (await ever(operation), 100);
  for (const page of [1, 2]) writer.add(page, samplePage(page));
  await hangs;
  clock.advance(1000);
  await expect(writer.room().then(() => writer.flush())).rejects.toMatchObject({
    code: "page-file-unreachable",
  });
  const before = files.bytes!.length;
  goesOn.resolve();
  await new Promise(setImmediate);
  expect(files.bytes!.length).toBe(before + 100);
});

test("one that is late while it is made is closed and removed", async () => {
  const files = new MemoryPageFiles();
  const clock = new ManualClock();
  const { hangs, goesOn } = hangNext(files, "create");
  const made = sampleWriter(files, { clock, timeoutMs: 1000 });
  await hangs;
  clock.advance(1000);
  await expect(made).rejects.toMatchObject({ code: "page-file-unreachable" });
  goesOn.resolve();
  await new Promise(setImmediate);
  expect(files.operations).toEqual(["create", "closeWritten", "remove"]);
  expect(files.bytes).toBeNull();
});

test("what is closed without being complete drops what waits, and says nothing", async () => {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, SMALL);
  writer.add(1, samplePage(1));
  expect(await writer.close({ complete: false })).toBeNull();
  expect(files.operations).toEqual(["create", "write", "sync", "closeWritten"]);
  expect(writer.failure).toBeNull();
  await expect(writer.room()).rejects.toMatchObject({ code: "page-file-closed" });
  await expect(writer.close({ complete: true })).rejects.toMatchObject({
    code: "page-file-closed",
  });
});

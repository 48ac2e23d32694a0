import { describe, expect, test } from "vitest";
import { ManualClock } from "../events/manual-clock.ts";
import { errnoError } from "../witness/errno-error.ts";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import {
  batchBytes,
  hangNext,
  headerBytes,
  SAMPLE_SUBJECT,
  sampleFile,
  samplePage,
  sampleReader,
  sampleWriter,
} from "./sample-page-file.ts";

const damaged = { code: "page-file-damaged" };
describe("a file that grows", () => {
  test("is read as far as it has come", async () => {
    const files = new MemoryPageFiles();
    const writer = await sampleWriter(files);
    const reader = await sampleReader(files);
    await reader.refresh();
    expect(await reader.read(5)).toBeNull();
    writer.add(5, samplePage(5));
    await writer.addZeros(8, 2);
    await writer.flush();
    expect(await reader.read(5)).toBeNull();
    await reader.refresh();
    expect(await reader.read(5)).toEqual(samplePage(5));
    expect(await reader.read(9)).toBe("zero");
    expect(await reader.read(10)).toBeNull();
    expect(reader.state).toMatchObject({ phase: "growing", dataPages: 1, zeroPages: 2 });
    const mark = await writer.close({ complete: true });
    await reader.refresh();
    expect(await reader.complete).toEqual(mark);
    expect(reader.state).toMatchObject({ phase: "complete", failure: null, trouble: null });
  });

  test("is followed by the clock, until it is complete", async () => {
    const files = new MemoryPageFiles();
    const clock = new ManualClock();
    const writer = await sampleWriter(files);
    let changes = 0;
    const onChange = (): void => {
      changes++;
    };
    const reader = await sampleReader(files, { clock, pollMs: 100, onChange });
    const looks = async (): Promise<void> => {
      clock.advance(100);
      await new Promise(setImmediate);
    };
    reader.follow();
    reader.follow();
    await new Promise(setImmediate);
    expect(changes).toBe(0);
    writer.add(1, samplePage(1));
    await writer.flush();
    await looks();
    expect(changes).toBe(1);
    expect(await reader.read(1)).toEqual(samplePage(1));
    await writer.close({ complete: true });
    await looks();
    await reader.complete;
    expect(clock.timerCount).toBe(0);
    expect(changes).toBe(2);
  });

  test("is not looked at any more when it is closed", async () => {
    const files = new MemoryPageFiles();
    const clock = new ManualClock();
    await sampleWriter(files);
    const reader = await sampleReader(files, { clock });
    reader.follow();
    await new Promise(setImmediate);
    await reader.close();
    expect(clock.timerCount).toBe(0);
    const closed = { code: "page-file-closed" };
    await expect(reader.complete).rejects.toMatchObject(closed);
    await expect(reader.refresh()).rejects.toMatchObject(closed);
    await expect(reader.read(0)).rejects.toMatchObject(closed);
    expect(files.operations.at(-1)).toBe("closeRead");
  });

  test("that is cut off anywhere gives the batches before, and is not complete", async () => {
    const bytes = await sampleFile([[1, 2], [3]]);
    const header = await headerBytes();
    const ends = [header + batchBytes(2), header + batchBytes(2) + batchBytes(1)];
    for (let length = 0; length < bytes.length; length += length % 16 === 15 ? 1 : 3) {
      const files = new MemoryPageFiles(bytes.subarray(0, length));
      if (length < header) {
        await expect(sampleReader(files)).rejects.toMatchObject({ code: "page-file-truncated" });
        continue;
      }
      const reader = await sampleReader(files);
      await reader.refresh();
      expect(reader.state.phase).toBe("growing");
      expect(await reader.read(2)).toEqual(length >= ends[0]! ? samplePage(2) : null);
      expect(await reader.read(3)).toEqual(length >= ends[1]! ? samplePage(3) : null);
    }
  });

  test("may have holes for a while, as NFS makes them", async () => {
    const bytes = await sampleFile([[1], [2], [3]]);
    const clock = new ManualClock();
    for (let hole = await headerBytes(); hole < bytes.length; hole += 1024) {
      const holed = Buffer.from(bytes);
      holed.fill(0, hole, Math.min(hole + 1024, bytes.length));
      const files = new MemoryPageFiles(holed);
      const reader = await sampleReader(files, { clock, settleMs: 1000 });
      await reader.refresh();
      const seen = await Promise.all([1, 2, 3].map((page) => reader.read(page).catch(() => null)));
      for (const [i, page] of seen.entries()) {
        if (page !== null) expect(page).toEqual(samplePage(i + 1));
      }
      clock.advance(500);
      files.bytes = bytes;
      await reader.refresh();
      for (const page of [1, 2, 3]) expect(await reader.read(page)).toEqual(samplePage(page));
      expect(reader.state.phase).toBe("complete");
    }
  });

  test("is damaged where a record does not hold for long", async () => {
    const bytes = await sampleFile([[1], [2]]);
    const header = await headerBytes();
    bytes[header + batchBytes(1) + 5]! ^= 1;
    const clock = new ManualClock();
    const reader = await sampleReader(new MemoryPageFiles(bytes), { clock, settleMs: 1000 });
    await reader.refresh();
    clock.advance(999);
    await reader.refresh();
    expect(reader.state.phase).toBe("growing");
    clock.advance(1);
    await expect(reader.refresh()).rejects.toMatchObject(damaged);
    await expect(reader.refresh()).rejects.toMatchObject(damaged);
    await expect(reader.complete).rejects.toMatchObject(damaged);
    expect(reader.state).toMatchObject({ phase: "stopped", failure: damaged });
    expect(await reader.read(1)).toEqual(samplePage(1));
    expect(await reader.read(2)).toBeNull();
  });

  test("may have another hole later, which has its own time", async () => {
    const [bytes, header] = [await sampleFile([[1], [2]]), await headerBytes()];
    const clock = new ManualClock();
    const holed = Buffer.from(bytes).fill(0, header, header + 8);
    const files = new MemoryPageFiles(holed.subarray(0, header + batchBytes(1)));
    const reader = await sampleReader(files, { clock, settleMs: 1000 });
    await reader.refresh();
    clock.advance(900);
    files.bytes = Buffer.from(bytes).fill(0, header + batchBytes(1), header + batchBytes(1) + 8);
    await reader.refresh();
    expect(reader.state.dataPages).toBe(1);
    clock.advance(900);
    await reader.refresh();
    clock.advance(100);
    await expect(reader.refresh()).rejects.toMatchObject(damaged);
  });

  test("is opened anew where this host may remember what was there before", async () => {
    const [bytes, header] = [await sampleFile([[1], [2]]), await headerBytes()];
    const files = new MemoryPageFiles(Buffer.from(bytes).fill(0, header + 32, header + 4000));
    files.isCached = true;
    const reader = await sampleReader(files);
    await reader.refresh();
    files.bytes = bytes;
    expect(await reader.read(1)).toEqual(samplePage(1));
  });

  test("is damaged at once where it says that it was synced", async () => {
    const bytes = await sampleFile([[1], [2]]);
    const header = await headerBytes();
    bytes[header + 32 + 100]! ^= 1;
    const reader = await sampleReader(new MemoryPageFiles(bytes));
    await reader.refresh();
    await expect(reader.read(1)).rejects.toMatchObject({
      ...damaged,
      detail: { offset: header + 32 },
    });
    expect(await reader.read(2)).toEqual(samplePage(2));
    await expect(reader.verify()).rejects.toMatchObject(damaged);
  });

  test("has pages that are not there yet, where it does not say so", async () => {
    const files = new MemoryPageFiles();
    const clock = new ManualClock();
    const writer = await sampleWriter(files);
    writer.add(1, samplePage(1));
    await writer.flush();
    const at = files.bytes!.length - 200;
    files.bytes![at]! ^= 1;
    const reader = await sampleReader(files, { clock, settleMs: 1000 });
    await reader.refresh();
    expect(await reader.read(1)).toBeNull();
    expect(await reader.verify()).toBe(0);
    clock.advance(1000);
    await expect(reader.read(1)).rejects.toMatchObject(damaged);
    files.bytes![at]! ^= 1;
    expect(await reader.read(1)).toEqual(samplePage(1));
    expect(await reader.verify()).toBe(1);
  });
});

describe("a file under the name", () => {
  test("that is shorter than what was synced is truncated", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1], [2]]));
    const reader = await sampleReader(files);
    await reader.refresh();
    files.bytes = files.bytes!.subarray(0, -1);
    await expect(reader.refresh()).rejects.toMatchObject({ code: "page-file-truncated" });
    expect(await reader.read(2)).toEqual(samplePage(2));
  });

  test("that is shorter than what was not synced may be so for a while", async () => {
    const files = new MemoryPageFiles();
    const clock = new ManualClock();
    const writer = await sampleWriter(files);
    writer.add(1, samplePage(1));
    await writer.flush();
    const bytes = files.bytes!;
    const reader = await sampleReader(files, { clock, settleMs: 1000 });
    await reader.refresh();
    for (const end of [-1, undefined, -2000]) {
      files.bytes = bytes.subarray(0, end);
      await reader.refresh();
      clock.advance(900);
    }
    await expect(reader.read(1)).rejects.toMatchObject(damaged);
    clock.advance(100);
    await expect(reader.refresh()).rejects.toMatchObject({ code: "page-file-truncated" });
  });

  test("that is longer than its end is damaged", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1]]));
    const reader = await sampleReader(files);
    await reader.refresh();
    files.bytes = Buffer.concat([files.bytes!, Buffer.of(0)]);
    await expect(reader.refresh()).rejects.toMatchObject(damaged);
    const late = await sampleReader(files);
    await expect(late.refresh()).rejects.toMatchObject(damaged);
    await expect(late.complete).rejects.toMatchObject(damaged);
  });

  test.each(["another", "none"])("is %s by now: it is replaced", async (what) => {
    const files = new MemoryPageFiles(await sampleFile([[1]]));
    const reader = await sampleReader(files);
    await reader.refresh();
    const { bytes } = files;
    files.inode++;
    if (what === "none") files.bytes = null;
    await expect(reader.refresh()).rejects.toMatchObject({ code: "page-file-replaced" });
    files.bytes = bytes;
    expect(await reader.read(1)).toEqual(samplePage(1));
  });

  test("is missing", async () => {
    await expect(sampleReader(new MemoryPageFiles())).rejects.toMatchObject({
      code: "page-file-missing",
    });
  });
});

describe("what is not the expected file", () => {
  const [ram, vga] = SAMPLE_SUBJECT.blocks;
  test.each([
    ["guest", { guestName: "other" }],
    ["guest", { uuid: "0c7d8f7e-6a51-4a51-9c1e-70b2bbb60310" }],
    ["migration", { migrationId: "m2" }],
    ["epoch", { epoch: 8 }],
    ["scope", { scope: "whole" as const }],
    ["memory", { blocks: [vga!, ram!] }],
    ["memory", { blocks: [ram!] }],
    ["memory", { blocks: [{ ...ram!, lengthBytes: PAGE_BYTES }, vga!] }],
  ])("is refused: of another %s", async (what, change) => {
    const files = new MemoryPageFiles(await sampleFile([[1]]));
    await expect(sampleReader(files, {}, { ...SAMPLE_SUBJECT, ...change })).rejects.toMatchObject({
      code: "page-file-foreign",
      detail: { reason: `it is of another ${what}` },
    });
    expect(files.operations.at(-1)).toBe("closeRead");
  });

  test("is refused: of another key", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1]]));
    await expect(sampleReader(files, { secret: Buffer.alloc(32, 1) })).rejects.toMatchObject({
      code: "page-file-foreign",
      detail: { reason: "it is of another key" },
    });
  });

  test("is refused: with a header that its writer did not seal", async () => {
    const bytes = await sampleFile([]);
    bytes[(await headerBytes()) - 1]! ^= 1;
    await expect(sampleReader(new MemoryPageFiles(bytes))).rejects.toMatchObject({
      ...damaged,
      detail: { offset: 0, reason: "its header is not as its writer sealed it" },
    });
  });

  test("is refused: of a newer version", async () => {
    const bytes = await sampleFile([[1]]);
    bytes.writeUInt32BE(2, 8);
    await expect(sampleReader(new MemoryPageFiles(bytes))).rejects.toMatchObject({
      code: "page-file-too-new",
      detail: { version: 2 },
    });
  });
});

describe("a share in trouble", () => {
  test.each([
    ["EIO", "page-file-failed"],
    ["ETIMEDOUT", "page-file-unreachable"],
  ] as const)("that says %s stops nothing: %s", async (errno, code) => {
    for (const operation of ["open", "read"]) {
      const files = new MemoryPageFiles(await sampleFile([[1], [2]]));
      const reader = await sampleReader(files);
      files.onOperation = (one) => {
        if (one === operation) throw errnoError(errno);
        return undefined;
      };
      await expect(reader.refresh()).rejects.toMatchObject({ code });
      expect(reader.state).toMatchObject({ phase: "growing", trouble: { code } });
      files.onOperation = () => undefined;
      await reader.refresh();
      expect(reader.state).toMatchObject({ phase: "complete", trouble: null });
      files.onOperation = () => {
        throw errnoError(errno);
      };
      await expect(reader.read(1)).rejects.toMatchObject({ code });
      files.onOperation = () => undefined;
      expect(await reader.read(1)).toEqual(samplePage(1));
    }
  });

  test("that gives few bytes at a time is asked again", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1], [2]]));
    files.onOperation = (operation) => (operation === "read" ? 7 : undefined);
    const reader = await sampleReader(files);
    await reader.refresh();
    expect(reader.state.phase).toBe("complete");
    expect(await reader.read(2)).toEqual(samplePage(2));
  });

  test("that hangs is unreachable in time, and takes one call", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1], [2]]));
    const clock = new ManualClock();
    const reader = await sampleReader(files, { clock, timeoutMs: 1000, pollMs: 5000 });
    await reader.refresh();
    const { hangs, goesOn } = hangNext(files, "read");
    const reads = Promise.allSettled([reader.read(1), reader.read(2), reader.refresh()]);
    await hangs;
    const before = files.operations.length;
    clock.advance(1000);
    for (const result of await reads) {
      expect(result).toMatchObject({ reason: { code: "page-file-unreachable" } });
    }
    expect(files.operations.length).toBe(before);
    goesOn.resolve();
    expect(await reader.read(1)).toEqual(samplePage(1));
    expect(clock.timerCount).toBe(0);
  });

  test("that hangs keeps neither an opening nor a closing", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1]]));
    const clock = new ManualClock();
    const opening = hangNext(files, "open");
    const opened = sampleReader(files, { clock, timeoutMs: 1000 });
    await opening.hangs;
    clock.advance(1000);
    await expect(opened).rejects.toMatchObject({ code: "page-file-unreachable" });
    opening.goesOn.resolve();
    await new Promise(setImmediate);
    expect(files.operations.at(-1)).toBe("closeRead");
    const reader = await sampleReader(files, { clock, timeoutMs: 1000 });
    await reader.refresh();
    const reading = hangNext(files, "read");
    const read = reader.read(1);
    await reading.hangs;
    const closed = reader.close();
    clock.advance(1000);
    await closed;
    await expect(read).rejects.toMatchObject({ code: "page-file-unreachable" });
    reading.goesOn.resolve();
    await new Promise(setImmediate);
    expect(files.operations.at(-1)).toBe("closeRead");
  });

  test("that hangs while it is closed is asked nothing more", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1], [2]]));
    const reader = await sampleReader(files);
    await reader.refresh();
    const { hangs, goesOn } = hangNext(files, "read");
    const reads = Promise.allSettled([reader.read(1), reader.read(2)]);
    await hangs;
    const closed = reader.close();
    const before = files.operations.length;
    goesOn.resolve();
    const [first, second] = await reads;
    expect(first).toMatchObject({ status: "fulfilled" });
    expect(second).toMatchObject({ reason: { code: "page-file-closed" } });
    await closed;
    expect(files.operations.slice(before)).toEqual(["closeRead"]);
  });

  test("is looked at again when it is followed", async () => {
    const files = new MemoryPageFiles();
    const clock = new ManualClock();
    const writer = await sampleWriter(files);
    const reader = await sampleReader(files, { clock, pollMs: 100 });
    files.onOperation = () => {
      throw errnoError("EIO");
    };
    reader.follow();
    await new Promise(setImmediate);
    expect(reader.state.trouble).toMatchObject({ code: "page-file-failed" });
    files.onOperation = () => undefined;
    await writer.close({ complete: true });
    clock.advance(100);
    await reader.complete;
  });
});

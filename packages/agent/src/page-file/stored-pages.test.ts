import { describe, expect, test } from "vitest";
import { InvariantError } from "@vmferry/core";
import { ManualClock } from "../events/manual-clock.ts";
import { MemoryPageFiles } from "./memory-page-files.ts";
import {
  batchBytes,
  headerBytes,
  sampleFile,
  samplePage,
  sampleReader,
  sampleWriter,
} from "./sample-page-file.ts";

const damaged = { code: "page-file-damaged" };

describe("a batch", () => {
  test("is read as a whole", async () => {
    const files = new MemoryPageFiles(await sampleFile([[1, -9, 2], [4]], { compress: true }));
    const reader = await sampleReader(files);
    await reader.refresh();
    expect(reader.state.batches).toBe(2);
    expect(await reader.readBatch(0)).toEqual([
      { page: 1, count: 1, content: samplePage(1) },
      { page: 9, count: 1, content: "zero" },
      { page: 2, count: 1, content: samplePage(2) },
    ]);
    expect(await reader.readBatch(1)).toEqual([{ page: 4, count: 1, content: samplePage(4) }]);
    await expect(reader.readBatch(2)).rejects.toThrow(InvariantError);
  });

  test("is given without the pages that do not hold, and not at all without its index", async () => {
    const bytes = await sampleFile([[1, 3], [5]]);
    const header = await headerBytes();
    const files = new MemoryPageFiles(bytes);
    const reader = await sampleReader(files);
    await reader.refresh();
    bytes[header + 32 + 7]! ^= 4;
    expect(await reader.readBatch(0)).toEqual([
      { page: 1, count: 1, content: null },
      { page: 3, count: 1, content: samplePage(3) },
    ]);
    await expect(reader.verify()).rejects.toMatchObject(damaged);
    for (const at of [header - 1, header + 20, header + batchBytes(2) - 1]) {
      const before = bytes[at]!;
      bytes[at] = before ^ 4;
      await expect(reader.readBatch(0)).rejects.toMatchObject(damaged);
      bytes[at] = before;
    }
    expect(await reader.readBatch(1)).toHaveLength(1);
  });

  test("may be on its way again, when it was not synced", async () => {
    const files = new MemoryPageFiles();
    const writer = await sampleWriter(files);
    writer.add(1, samplePage(1));
    await writer.flush();
    const reader = await sampleReader(files, { clock: new ManualClock() });
    await reader.refresh();
    const bytes = files.bytes!;
    for (const length of [bytes.length - 1, bytes.length - 5000 + 1000]) {
      files.bytes = bytes.subarray(0, length);
      expect(await reader.readBatch(0)).toBeNull();
    }
    files.bytes = bytes;
    expect(await reader.readBatch(0)).toHaveLength(1);
  });
});

import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { limits } from "@vmferry/protocol";
import { BATCH_PAGE_BYTES, PageBatch } from "./page-batch.ts";
import type { Written } from "./page-writer.ts";

const PAGE = 4096;

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "vmferry-writer-"));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

/** What the writer says of each batch, in order. */
async function write(path: string, ...batches: readonly PageBatch[]): Promise<Written[]> {
  const fd = openSync(path, "w");
  const workerData = { fd };
  const writer = new Worker(new URL("page-writer.ts", import.meta.url), { workerData });
  const said: Written[] = [];
  try {
    for (const batch of batches) {
      const answer = once(writer, "message");
      writer.postMessage(batch.memory);
      said.push(...((await answer) as Written[]));
    }
  } finally {
    await writer.terminate();
    closeSync(fd);
  }
  return said;
}

function batchOf(...pages: readonly (readonly [place: number, value: number])[]): PageBatch {
  const batch = new PageBatch();
  for (const [place, value] of pages) batch.add(place, Buffer.alloc(2 * PAGE, value), PAGE);
  return batch;
}

describe("the writer of a store", () => {
  it("puts each page in its place, the later content where one comes twice", async () => {
    const path = join(directory, "pages");
    const batches = [batchOf([2, 20], [3, 30], [0, 1], [3, 31]), batchOf([0, 2])];
    expect(await write(path, ...batches)).toEqual([{ failure: null }, { failure: null }]);
    const bytes = readFileSync(path);
    expect([0, 1, 2, 3].map((place) => bytes[place * PAGE])).toEqual([2, 0, 20, 31]);
    expect(bytes.length).toBe(4 * PAGE);
  });

  it("tells why a batch could not be written", async () => {
    const [written] = await write("/dev/full", batchOf([0, 1]));
    expect(written!.failure?.message).toContain("ENOSPC");
  });
});

describe("a batch of pages", () => {
  it("gives neighbours as one piece, and everything in the order in which it came", () => {
    const batch = batchOf([7, 1], [8, 2], [9, 3], [3, 4], [9, 5]);
    const spans = [...batch.spans()].map(({ place, bytes }) => [place, bytes.length / PAGE]);
    expect(spans).toEqual([
      [7, 3],
      [3, 1],
      [9, 1],
    ]);
  });

  it("has pages as large as everybody's", () => {
    expect(BATCH_PAGE_BYTES).toBe(limits.PAGE_BYTES);
  });

  it("is full at some time, and takes pages again when it was emptied", () => {
    const batch = new PageBatch();
    while (!batch.isFull) batch.add(1, Buffer.alloc(PAGE), 0);
    expect([...batch.empty().spans()]).toEqual([]);
    batch.add(5, Buffer.alloc(PAGE), 0);
    expect([...batch.spans()].map(({ place }) => place)).toEqual([5]);
  });
});

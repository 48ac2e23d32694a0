import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { ArrivingBench, bytesOf, settle, UNIT_BYTES, type Part } from "./arriving-bench.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

describe("a frame", () => {
  test("is written as it says, and its credit goes back when it is", async () => {
    const bench = new ArrivingBench();
    bench.image.content.fill(0xee);
    bench.image.hold = true;
    bench.arrive([
      { at: 100, data: bytesOf(1000) },
      { at: 5000, zero: 200 },
      { at: 8192, trim: 4096 },
    ]);
    await settle();
    expect(bench.image.log).toEqual(["write 100+1000", "zero 5000+200", "punch 8192+4096"]);
    for (const left of [3, 2, 1]) {
      expect([bench.returned, bench.image.waiting.length]).toEqual([0, left]);
      bench.image.waiting.pop()!.go();
      await settle();
    }
    expect([bench.returned, bench.disk.receivedBytes]).toEqual([1, 1000]);
    expect(bench.image.content.subarray(100, 1100).equals(bytesOf(1000))).toBe(true);
    expect(bench.image.content.subarray(5000, 5200).equals(Buffer.alloc(200))).toBe(true);
    expect(bench.image.content.subarray(8192, 12_288).equals(Buffer.alloc(4096))).toBe(true);
    expect([bench.image.content[99], bench.image.content[5200]]).toEqual([0xee, 0xee]);
  });

  test("whose extents overlap is written in its order", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    bench.arrive([
      { at: 0, data: bytesOf(1000, 1) },
      { at: 500, zero: 100 },
      { at: 550, data: bytesOf(10, 3) },
    ]);
    await settle();
    expect(bench.image.waiting.map(({ text }) => text)).toEqual(["write 0+1000"]);
    bench.image.goAll();
    await settle();
    expect(bench.image.waiting.map(({ text }) => text)).toEqual(["zero 500+100"]);
    bench.image.goAll();
    await settle();
    bench.image.goAll();
    await settle();
    expect(bench.image.content.subarray(550, 560).equals(bytesOf(10, 3))).toBe(true);
    expect(bench.returned).toBe(1);
  });

  test("is begun when the one before it is written", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    bench.arrive([{ at: 0, data: bytesOf(10, 1) }]);
    bench.arrive([{ at: 20, data: bytesOf(10, 2) }]);
    await settle();
    expect(bench.image.log).toEqual(["write 0+10"]);
    bench.image.goAll();
    await settle();
    expect(bench.image.log).toEqual(["write 0+10", "write 20+10"]);
    expect(bench.returned).toBe(1);
  });

  test("that is compressed is written as it was before", async () => {
    const bench = new ArrivingBench();
    const parts = [
      { at: 300, data: bytesOf(5000) },
      { at: 0, zero: 10 },
      { at: 30_000, data: bytesOf(20) },
    ];
    bench.arrive(parts, { zstd: true });
    await settle();
    expect(bench.image.content.subarray(300, 5300).equals(bytesOf(5000))).toBe(true);
    expect(bench.image.content.subarray(30_000, 30_020).equals(bytesOf(20))).toBe(true);
    expect(bench.failures).toEqual([]);
  });
});

describe("the end of a disk", () => {
  test("waits for what has come before, then for the flush, then for the mark", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    bench.arrive([{ at: 0, data: bytesOf(UNIT_BYTES, 1) }]);
    bench.arrive([{ at: 0, data: bytesOf(UNIT_BYTES, 2) }]);
    const digest = vi.fn<(digest: string) => void>();
    void bench.disk.end().then(digest);
    await settle();
    bench.image.take("write 0+4096").go();
    await settle();
    bench.image.take("write 0+4096").go();
    await settle();
    expect(bench.image.waiting.map(({ text }) => text)).toEqual(["flush"]);
    expect([bench.marks, digest.mock.calls]).toEqual([[], []]);
    bench.image.take("flush").go();
    await settle();
    expect(digest.mock.calls).toEqual([[bench.naiveDigest()]]);
    expect(bench.marks).toEqual([
      {
        bits: "1111111111000000",
        state: "whole",
        after: ["write 0+4096", "write 0+4096", "flush"],
      },
    ]);
  });

  test("of one to which nothing was sent is the digest of zeros", async () => {
    const bench = new ArrivingBench({ sizeBytes: 3 * UNIT_BYTES + 512 });
    expect(await bench.disk.end()).toBe(bench.naiveDigest());
    expect(bench.marks.map(({ bits }) => bits)).toEqual(["11110000"]);
  });

  test("flushes again what came during a flush", async () => {
    const bench = new ArrivingBench();
    bench.arrive([{ at: 0, data: bytesOf(10) }]);
    await settle();
    bench.image.hold = true;
    await bench.pass(400);
    const early = bench.image.take("flush");
    bench.arrive([{ at: 100, data: bytesOf(10) }]);
    const digest = vi.fn();
    void bench.disk.end().then(digest);
    await settle();
    bench.image.take("write 100+10").go();
    await settle();
    bench.image.take("read 0+4096").go();
    early.go();
    await settle();
    expect(digest).not.toHaveBeenCalled();
    bench.image.take("flush").go();
    await settle();
    expect(digest).toHaveBeenCalledWith(bench.naiveDigest());
  });

  test("does not last for the clock", async () => {
    const bench = new ArrivingBench();
    bench.arrive([{ at: 3, data: bytesOf(10) }]);
    expect(await bench.disk.end()).toBe(bench.naiveDigest());
  });
});

describe("the mark", () => {
  test("says of a unit that it is there once a flush after its write is done, and not more often than every five seconds", async () => {
    const bench = new ArrivingBench();
    bench.arrive([{ at: 0, data: bytesOf(UNIT_BYTES) }]);
    await bench.pass(400);
    expect([bench.image.log, bench.marks]).toEqual([["write 0+4096", "flush"], []]);
    await bench.pass(4800);
    bench.image.hold = true;
    bench.arrive([{ at: 2 * UNIT_BYTES, data: bytesOf(UNIT_BYTES) }]);
    await settle();
    bench.image.goAll();
    await bench.pass(400);
    // Written while the flush was under way already: not covered.
    bench.arrive([{ at: 5 * UNIT_BYTES, data: bytesOf(UNIT_BYTES) }]);
    await settle();
    bench.image.take(`write ${5 * UNIT_BYTES}+4096`).go();
    await settle();
    expect(bench.marks).toEqual([]);
    bench.image.take("flush").go();
    await settle();
    expect(bench.marks.map(({ bits, state }) => [bits, state])).toEqual([
      ["1010000000000000", "filling"],
    ]);
  });

  test("says nothing of a unit that was written in part, until that was read again", async () => {
    const bench = new ArrivingBench();
    bench.arrive([
      { at: 10, data: bytesOf(10) },
      { at: 3 * UNIT_BYTES, data: bytesOf(UNIT_BYTES) },
    ]);
    await bench.pass(5000);
    bench.arrive([{ at: 3 * UNIT_BYTES, data: bytesOf(UNIT_BYTES) }]);
    await bench.pass(1000);
    expect(bench.image.log).toContain("read 0+4096");
    expect(bench.marks.at(-1)).toMatchObject({ bits: "1001000000000000" });
  });
});

describe("a unit that was written in part", () => {
  test("is read again when it was left alone for 400 to 800 ms, in an idle moment", async () => {
    const bench = new ArrivingBench();
    bench.arrive([{ at: 4000, data: bytesOf(200) }]);
    await bench.pass(300);
    bench.arrive([{ at: 4000, data: bytesOf(200) }]);
    await bench.pass(300);
    expect(bench.image.log.filter((text) => text.startsWith("read"))).toEqual([]);
    await bench.pass(600);
    expect(bench.image.log.filter((text) => text.startsWith("read"))).toEqual([
      "read 0+4096",
      "read 4096+4096",
    ]);
    expect(await bench.disk.end()).toBe(bench.naiveDigest());
  });

  test("keeps frames waiting for that read, and no longer", async () => {
    const bench = new ArrivingBench();
    bench.arrive([{ at: 4000, data: bytesOf(200, 1) }]);
    await bench.pass(600);
    bench.image.hold = true;
    await bench.pass(400);
    bench.arrive([{ at: 4000, data: bytesOf(200, 2) }]);
    await settle();
    expect(bench.image.log.at(-1)).toBe("read 0+4096");
    bench.image.take("read 0+4096").go();
    await settle();
    bench.image.take("write 4000+200").go();
    await settle();
    expect(bench.returned).toBe(2);
    bench.image.hold = false;
    expect(await bench.disk.end()).toBe(bench.naiveDigest());
  });
});

const anyPart: fc.Arbitrary<Part> = fc
  .record({
    kind: fc.constantFrom("data", "data", "zero", "trim"),
    at: fc.oneof(
      fc.nat(9 * UNIT_BYTES),
      fc.nat(9).map((unit) => unit * UNIT_BYTES),
    ),
    length: fc.oneof(
      fc.integer({ min: 1, max: 9000 }),
      fc.constantFrom(UNIT_BYTES, 2 * UNIT_BYTES),
    ),
    salt: fc.integer({ min: 1, max: 99 }),
  })
  .map(({ kind, at, length: wanted, salt }) => {
    const length = Math.min(wanted, 9 * UNIT_BYTES + 512 - at);
    if (length <= 0) return { at: 0, zero: 1 };
    if (kind === "data") return { at, data: bytesOf(length, salt) };
    return kind === "zero" ? { at, zero: length } : { at, trim: length };
  });

describe("any frames", () => {
  test(`leave on the disk what they say, with the digest of just that (SEED=${seed})`, async () => {
    const frame = fc.record({
      parts: fc.array(anyPart, { minLength: 1, maxLength: 12 }),
      zstd: fc.boolean(),
      pauseMs: fc.constantFrom(0, 0, 300, 1000),
    });
    const property = fc.asyncProperty(fc.array(frame, { maxLength: 15 }), async (frames) => {
      const bench = new ArrivingBench({ sizeBytes: 9 * UNIT_BYTES + 512 });
      const naive = Buffer.alloc(9 * UNIT_BYTES + 512);
      for (const { parts, zstd, pauseMs } of frames) {
        const anyData = parts.some((part) => "data" in part);
        bench.arrive(parts, { zstd: zstd && anyData });
        for (const part of parts) {
          if ("data" in part) part.data.copy(naive, part.at);
          else naive.fill(0, part.at, part.at + ("zero" in part ? part.zero : part.trim));
        }
        if (pauseMs > 0) await bench.pass(pauseMs);
      }
      const digest = await bench.disk.end();
      expect(bench.image.content.equals(naive)).toBe(true);
      expect(digest).toBe(bench.naiveDigest());
      expect(bench.returned).toBe(frames.length);
    });
    await fc.assert(property, { seed, numRuns: 60 });
  });
});

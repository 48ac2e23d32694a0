import { afterEach, describe, expect, test, vi } from "vitest";
import { limits, type ProtocolError } from "@vmferry/protocol";
import type { ArrivedFrame } from "../bulk/bulk-receiver.ts";
import {
  ArrivingBench,
  bytesOf,
  frameOf,
  settle,
  UNIT_BYTES,
  type Part,
} from "./arriving-bench.ts";

const violated = expect.objectContaining({ code: "protocol-violation" }) as ProtocolError;
const MIB = 1024 * 1024;
const FLUSH_BYTES = 128 * MIB;

describe("a source that breaks the protocol", () => {
  const DISK_BYTES = 10 * UNIT_BYTES;
  const LENGTH_AT = limits.FRAME_HEADER_BYTES + 8;
  const OPERATION_AT = limits.FRAME_HEADER_BYTES + 12;
  const frames: readonly [string, () => ArrivedFrame][] = [
    ["writes behind the end", () => frameOf([{ at: DISK_BYTES - 9, data: bytesOf(10) }])],
    ["zeroes behind the end", () => frameOf([{ at: DISK_BYTES, trim: 1 }])],
    [
      "zeroes nothing",
      () => patched({ at: 0, zero: 1 }, (frame) => frame.writeUInt32BE(0, LENGTH_AT)),
    ],
    [
      "zeroes more than may be",
      () =>
        patched({ at: 0, trim: 1 }, (frame) =>
          frame.writeUInt32BE(limits.EXTENT_LENGTH_MAX + 1, LENGTH_AT),
        ),
    ],
    [
      "names another operation",
      () => patched({ at: 0, zero: 1 }, (frame) => frame.writeUInt8(4, OPERATION_AT)),
    ],
    [
      "sends less than it says",
      () => patched({ at: 0, data: bytesOf(99) }, (frame) => frame.writeUInt32BE(100, LENGTH_AT)),
    ],
    ["compresses nothing", () => frameOf([{ at: 0, zero: 10 }], { zstd: true })],
    [
      "compresses more than it says",
      () =>
        patched({ at: 0, data: bytesOf(100) }, (frame) => frame.writeUInt32BE(99, LENGTH_AT), true),
    ],
  ];
  for (const [what, make] of frames) {
    test(`and ${what} ends it, and nothing of the frame is written`, async () => {
      const bench = new ArrivingBench();
      bench.disk.arrived(make());
      await settle();
      expect(bench.failures).toEqual([violated]);
      expect([bench.image.log, bench.returned]).toEqual([[], 0]);
      await expect(bench.disk.end()).rejects.toThrow(violated);
    });
  }

  test("and compresses although that was not agreed ends it", async () => {
    const bench = new ArrivingBench({ compression: false });
    bench.arrive([{ at: 0, data: bytesOf(1000) }], { zstd: true });
    await settle();
    expect([bench.failures, bench.image.log]).toEqual([[violated], []]);
  });

  test("and sends something behind the end of the disks is told so", async () => {
    const bench = new ArrivingBench();
    await bench.disk.end();
    expect(() => {
      bench.arrive([{ at: 0, zero: 10 }]);
    }).toThrow(violated);
  });

  test("and sends more small frames than anybody has a reason to is told so", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    const frame = frameOf([{ at: 0, zero: 10 }]);
    const sendMany = (): void => {
      for (let i = 0; i <= 2 ** 19 + 1; i++) bench.disk.arrived(frame);
    };
    expect(sendMany).toThrow(violated);
    bench.image.goAll();
    await bench.disk.stop();
  });
});

describe("an image that fails", () => {
  for (const [errno, code] of [
    ["ENOSPC", "dest-disk-full"],
    ["EIO", "dest-disk-failed"],
  ] as const) {
    test(`with ${errno} ends the disk with ${code}, once, and by its name`, async () => {
      const bench = new ArrivingBench();
      bench.image.hold = true;
      bench.arrive([{ at: 0, data: bytesOf(10) }]);
      bench.arrive([{ at: 100, data: bytesOf(10) }]);
      await settle();
      bench.image.take("write 0+10").fail(errno);
      await settle();
      expect(bench.failures).toHaveLength(1);
      expect(bench.failures[0]).toMatchObject({ code });
      expect(String(bench.failures[0])).toContain("disk0");
      expect([bench.image.log, bench.returned]).toEqual([["write 0+10"], 0]);
      bench.arrive([{ at: 200, data: bytesOf(10) }]);
      await settle();
      expect(bench.image.log).toEqual(["write 0+10"]);
      await expect(bench.disk.end()).rejects.toThrow("write 0+10 failed");
    });
  }

  test("is not written to once `stop` has resolved, although a write beside it failed first", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    bench.arrive([
      { at: 0, data: bytesOf(10) },
      { at: 100, data: bytesOf(10) },
    ]);
    await settle();
    bench.image.take("write 0+10").fail("EIO");
    await settle();
    const stopped = vi.fn();
    void bench.disk.stop().then(stopped);
    await settle();
    expect(stopped).not.toHaveBeenCalled();
    bench.image.goAll();
    await settle();
    expect(stopped).toHaveBeenCalled();
  });

  test("to flush while frames come ends the disk", async () => {
    const bench = new ArrivingBench({ sizeBytes: 32 * MIB });
    bench.image.hold = true;
    for (let i = 0; i * 256 * 1024 < FLUSH_BYTES; i++) {
      bench.arrive([{ at: (i % 64) * 256 * 1024, data: bytesOf(256 * 1024) }]);
      await settle();
      bench.image.goAll();
    }
    await settle();
    bench.image.take("flush").fail("EIO");
    await settle();
    expect(bench.failures).toEqual([expect.objectContaining({ code: "dest-disk-failed" })]);
  });

  test("to flush in an idle moment ends the disk", async () => {
    const bench = new ArrivingBench();
    bench.arrive([{ at: 0, data: bytesOf(10) }]);
    await settle();
    bench.image.hold = true;
    await bench.pass(400);
    bench.image.take("flush").fail("EIO");
    await settle();
    expect(bench.failures).toEqual([expect.objectContaining({ code: "dest-disk-failed" })]);
    expect(bench.clock.timerCount).toBe(0);
  });

  test("to keep its mark ends the disk", async () => {
    const bench = new ArrivingBench();
    bench.markFailure = new Error("no mark");
    await expect(bench.disk.end()).rejects.toThrow("no mark");
    expect(bench.failures).toEqual([expect.objectContaining({ code: "dest-disk-failed" })]);
  });
});

describe("a failure at the end", () => {
  const unhandled = vi.fn();
  afterEach(() => {
    process.off("unhandledRejection", unhandled);
    unhandled.mockReset();
  });

  test("of the flush is told once, while hashes are still being made", async () => {
    process.on("unhandledRejection", unhandled);
    const bench = new ArrivingBench();
    bench.arrive([{ at: 10, data: bytesOf(10) }]);
    await settle();
    bench.image.hold = true;
    const ended = bench.disk.end();
    ended.catch(() => undefined);
    await settle();
    bench.image.take("flush").fail("EIO");
    await settle();
    expect(unhandled).not.toHaveBeenCalled();
    bench.image.take("read 0+4096").go();
    await expect(ended).rejects.toThrow("flush failed");
    await settle();
    expect(bench.failures).toEqual([expect.objectContaining({ code: "dest-disk-failed" })]);
    expect(bench.marks).toEqual([]);
  });

  test("of both a read and the flush is told once", async () => {
    process.on("unhandledRejection", unhandled);
    const bench = new ArrivingBench();
    bench.arrive([{ at: 10, data: bytesOf(10) }]);
    await settle();
    bench.image.hold = true;
    const ended = bench.disk.end();
    ended.catch(() => undefined);
    await settle();
    bench.image.take("read 0+4096").fail("EIO");
    await settle();
    bench.image.take("flush").fail("EIO");
    await settle();
    expect(unhandled).not.toHaveBeenCalled();
    await expect(ended).rejects.toThrow("read 0+4096 failed");
    expect(bench.failures).toHaveLength(1);
  });
});

describe("a disk that is stopped", () => {
  test("waits for what is being written, drops the rest, and ends with an error", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    for (const at of [0, 100]) bench.arrive([{ at, data: bytesOf(10) }]);
    const ended = bench.disk.end();
    await settle();
    const stopped = vi.fn();
    void bench.disk.stop().then(stopped);
    await settle();
    expect(stopped).not.toHaveBeenCalled();
    bench.image.goAll();
    await settle();
    expect(stopped).toHaveBeenCalled();
    await expect(ended).rejects.toThrow("does not arrive any more");
    expect([bench.image.log, bench.failures]).toEqual([["write 0+10"], []]);
    expect(bench.clock.timerCount).toBe(0);
  });

  test("waits for a flush, and calls nothing whole behind it", async () => {
    const bench = new ArrivingBench();
    bench.image.hold = true;
    const ended = bench.disk.end();
    await settle();
    const stopped = vi.fn();
    void bench.disk.stop().then(stopped);
    await settle();
    expect(stopped).not.toHaveBeenCalled();
    bench.image.take("flush").go();
    await settle();
    expect(stopped).toHaveBeenCalled();
    expect(bench.marks).toEqual([]);
    await expect(ended).rejects.toThrow("does not arrive any more");
  });

  test("does not read the rest of a large disk first", async () => {
    const bench = new ArrivingBench({ sizeBytes: 100 * UNIT_BYTES });
    for (let unit = 0; unit < 100; unit++) bench.arrive([{ at: unit * UNIT_BYTES, zero: 1 }]);
    await settle();
    await settle();
    bench.image.hold = true;
    bench.disk.end().catch(() => undefined);
    await settle();
    const stopped = vi.fn();
    void bench.disk.stop().then(stopped);
    bench.image.goAll();
    await settle();
    bench.image.goAll();
    await settle();
    expect(stopped).toHaveBeenCalled();
    expect(bench.image.log.filter((text) => text.startsWith("read")).length).toBeLessThan(3);
  });

  test("ends at once when nothing is under way", async () => {
    const bench = new ArrivingBench();
    await bench.disk.stop();
    await bench.disk.stop();
    bench.arrive([{ at: 0, zero: 10 }]);
    await bench.pass(1000);
    expect(bench.image.log).toEqual([]);
  });
});

/** A frame with one extent whose bytes are changed when it is done. */
function patched(part: Part, patch: (frame: Buffer) => void, zstd = false): ArrivedFrame {
  const arrived = frameOf([part], { zstd });
  patch(arrived.frame);
  return arrived;
}

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  DiskOperation,
  ExtentTable,
  FrameKind,
  limits,
  openFrame,
  sealFrame,
  type DiskExtent,
} from "@vmferry/protocol";
import type { OutboundEntry, OutboundFrame } from "../transport/bulk-sender.ts";
import { DiskFrames } from "./disk-frames.ts";

const { EXTENT_LENGTH_MAX, FRAME_DISK_BYTES_MAX, FRAME_EXTENTS_MAX } = limits;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const DISK = 3;
const GIB = 2 ** 30;
const DISK_BYTES = 16 * GIB;

interface Decoded {
  readonly extents: readonly DiskExtent[];
  /** Of each extent; null for zeros. */
  readonly data: readonly (Buffer | null)[];
  readonly dataBytes: number;
  readonly entry: OutboundFrame;
}

class Bench {
  readonly entries: OutboundFrame[] = [];
  readonly frames = new DiskFrames(
    {
      enqueue: (entry: OutboundEntry) => {
        if (!("view" in entry)) throw new Error("only frames are expected");
        this.entries.push(entry);
      },
    },
    {
      disk: DISK,
      onFailed: (error) => {
        throw error;
      },
    },
  );

  /** What the dest reads in the frames so far. */
  get decoded(): Decoded[] {
    return this.entries.map(decode);
  }

  get extents(): DiskExtent[] {
    return this.decoded.flatMap(({ extents }) => extents);
  }
}

function decode(entry: OutboundFrame): Decoded {
  const { kind, encoding, pass, block, runs } = entry;
  const frame = Buffer.from(entry.view);
  sealFrame(frame, { kind, encoding, pass, sequence: 7, block, runs });
  const header = openFrame(frame);
  expect([header.kind, header.block]).toEqual([FrameKind.DISK, DISK]);
  const table = new ExtentTable();
  table.open(frame, header, DISK_BYTES);
  const extents = Array.from({ length: table.count }, (_, index) => table.extent(index));
  let at = table.dataOffset;
  const data = extents.map(({ operation, length }) => {
    if (operation !== DiskOperation.DATA) return null;
    at += length;
    return frame.subarray(at - length, at);
  });
  return { extents, data, dataBytes: table.dataBytes, entry };
}

function bytes(length: number, first = 1): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (first + index) % 251));
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      setImmediate(resolve);
    });
  });
}

describe("frames of a disk", () => {
  test("carry data and zeros in the order in which they came", () => {
    const bench = new Bench();
    bench.frames.data(5000, bytes(100));
    bench.frames.zeros(4096, 512, "zero");
    bench.frames.data(5050, bytes(10, 77));
    bench.frames.zeros(0, 4096, "trim");
    bench.frames.flush();
    const [frame] = bench.decoded;
    expect(bench.entries).toHaveLength(1);
    expect(frame!.extents).toEqual([
      { operation: DiskOperation.DATA, offset: 5000, length: 100 },
      { operation: DiskOperation.ZERO, offset: 4096, length: 512 },
      { operation: DiskOperation.DATA, offset: 5050, length: 10 },
      { operation: DiskOperation.TRIM, offset: 0, length: 4096 },
    ]);
    expect(frame!.data).toEqual([bytes(100), null, bytes(10, 77), null]);
  });

  test("leave at the end of the turn of the event loop, together", async () => {
    const { frames, entries } = new Bench();
    frames.data(0, bytes(10));
    await Promise.resolve();
    frames.data(100, bytes(10));
    expect(entries).toHaveLength(0);
    await turn();
    expect(entries.map(({ runs }) => runs)).toEqual([2]);
    frames.zeros(0, 10, "zero");
    await turn();
    expect(entries.map(({ runs }) => runs)).toEqual([2, 1]);
  });

  test("leave at once when they are full, whatever is in them", () => {
    const { frames, entries } = new Bench();
    frames.data(0, bytes(FRAME_DISK_BYTES_MAX));
    expect(entries).toHaveLength(1);
    for (let i = 0; i < FRAME_EXTENTS_MAX; i++) frames.zeros(i * 1024, 512, "zero");
    expect(entries).toHaveLength(2);
    expect(frames.openBytes).toBe(0);
  });

  test("leave in order, also around one that is empty", () => {
    const { frames, entries } = new Bench();
    frames.flush();
    frames.data(0, bytes(10));
    expect(frames.openBytes).toBe(10);
    frames.flush();
    frames.flush();
    expect(entries).toHaveLength(1);
  });

  test("do not change when what was given is reused", () => {
    const bench = new Bench();
    const data = bytes(100);
    bench.frames.data(0, data);
    data.fill(0xee);
    bench.frames.flush();
    expect(bench.decoded[0]!.data).toEqual([bytes(100)]);
  });

  test("do not share a buffer before the first of them was sent", () => {
    for (const length of [64, 60_000]) {
      const bench = new Bench();
      bench.frames.data(0, bytes(length));
      bench.frames.flush();
      bench.frames.data(0, bytes(length, 9));
      bench.frames.flush();
      const datas = bench.decoded.map(({ data }) => data[0]);
      expect(datas).toEqual([bytes(length), bytes(length, 9)]);
      bench.entries[0]!.flushed();
      bench.frames.data(0, bytes(length, 33));
      bench.frames.flush();
      expect(bench.decoded.slice(1).map(({ data }) => data[0])).toEqual([
        bytes(length, 9),
        bytes(length, 33),
      ]);
    }
  });

  test("keep little more memory than they carry while thousands of them wait", () => {
    const bench = new Bench();
    for (let i = 0; i < 4000; i++) {
      bench.frames.data(i * 1024, bytes(512));
      bench.frames.flush();
    }
    const buffers = new Set(bench.entries.map(({ view }) => view.buffer));
    const kept = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(kept).toBeLessThan(4000 * 2048);
  });

  test("are not sent any more once they were stopped", async () => {
    const { frames, entries } = new Bench();
    frames.data(0, bytes(10));
    frames.stop();
    await turn();
    frames.data(0, bytes(2 * FRAME_DISK_BYTES_MAX));
    frames.zeros(0, 512, "trim");
    frames.flush();
    await turn();
    expect(entries).toHaveLength(0);
  });
});

describe("neighbours", () => {
  test("become one extent where they say the same", () => {
    const bench = new Bench();
    bench.frames.data(0, bytes(10));
    bench.frames.data(10, bytes(10));
    bench.frames.zeros(20, 10, "zero");
    bench.frames.zeros(30, 10, "zero");
    bench.frames.zeros(40, 10, "trim");
    bench.frames.zeros(30, 10, "trim");
    bench.frames.flush();
    expect(bench.extents).toEqual([
      { operation: DiskOperation.DATA, offset: 0, length: 20 },
      { operation: DiskOperation.ZERO, offset: 20, length: 20 },
      { operation: DiskOperation.TRIM, offset: 40, length: 10 },
      { operation: DiskOperation.TRIM, offset: 30, length: 10 },
    ]);
  });

  test("stay apart where one extent could not hold them", () => {
    const bench = new Bench();
    bench.frames.zeros(0, EXTENT_LENGTH_MAX - 512, "trim");
    bench.frames.zeros(EXTENT_LENGTH_MAX - 512, 512, "trim");
    bench.frames.zeros(EXTENT_LENGTH_MAX, 512, "trim");
    bench.frames.flush();
    expect(bench.extents.map(({ length }) => length)).toEqual([EXTENT_LENGTH_MAX, 512]);
  });
});

describe("what is too much for one frame", () => {
  test("becomes several, without a gap", () => {
    const bench = new Bench();
    const data = bytes(2 * FRAME_DISK_BYTES_MAX + 1000);
    bench.frames.data(512, bytes(512));
    bench.frames.data(1024, data);
    bench.frames.flush();
    expect(bench.decoded.map(({ dataBytes }) => dataBytes)).toEqual([
      FRAME_DISK_BYTES_MAX,
      FRAME_DISK_BYTES_MAX,
      1512,
    ]);
    const sent = Buffer.concat(bench.decoded.flatMap(({ data: parts }) => parts as Buffer[]));
    expect(sent.equals(Buffer.concat([bytes(512), data]))).toBe(true);
    expect(bench.extents.at(-1)).toMatchObject({ offset: 512 + 2 * FRAME_DISK_BYTES_MAX });
  });

  test("becomes several extents where it is zeros", () => {
    const bench = new Bench();
    bench.frames.zeros(1000, 3 * GIB - 1000, "trim");
    bench.frames.flush();
    expect(bench.extents.map(({ offset, length }) => [offset, length])).toEqual([
      [1000, EXTENT_LENGTH_MAX],
      [1000 + EXTENT_LENGTH_MAX, EXTENT_LENGTH_MAX],
      [1000 + 2 * EXTENT_LENGTH_MAX, EXTENT_LENGTH_MAX - 1000],
    ]);
  });

  test("begins a new frame where it is one unit, so that one frame has all of it", () => {
    const bench = new Bench();
    const unitBytes = 65_536;
    bench.frames.data(0, bytes(1000));
    for (let unit = 1; unit <= 4; unit++) {
      bench.frames.data(unit * unitBytes, bytes(unitBytes, unit), { unit: true });
    }
    bench.frames.flush();
    expect(bench.decoded.map(({ dataBytes }) => dataBytes)).toEqual([
      1000 + 3 * unitBytes,
      unitBytes,
    ]);
  });
});

type Call =
  | {
      readonly do: "data";
      readonly offset: number;
      readonly length: number;
      readonly unit: boolean;
    }
  | { readonly do: "zero" | "trim"; readonly offset: number; readonly length: number }
  | { readonly do: "flush" };

const WINDOW_BYTES = 600_000;
const place = {
  offset: fc.nat(WINDOW_BYTES - 300_000),
  length: fc.integer({ min: 1, max: 300_000 }),
};
const smallPlace = { offset: fc.nat(2000), length: fc.integer({ min: 1, max: 200 }) };
const anyCall = fc.oneof(
  fc.record({ do: fc.constant("data"), ...place, unit: fc.boolean() }),
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("data"), ...smallPlace, unit: fc.boolean() }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("zero", "trim"), ...smallPlace }) },
  fc.record({ do: fc.constantFrom("zero", "trim"), ...place }),
  fc.record({ do: fc.constant("flush") }),
) as fc.Arbitrary<Call>;

describe("any sequence of data and zeros", () => {
  test(`makes the disk at the other end what it says (SEED=${seed})`, () => {
    const property = fc.property(fc.array(anyCall, { maxLength: 60, size: "max" }), (calls) => {
      const bench = new Bench();
      const expected = Buffer.alloc(WINDOW_BYTES, 0xaa);
      const units: Buffer[] = [];
      for (const [index, call] of calls.entries()) {
        if (call.do === "flush") bench.frames.flush();
        else if (call.do === "data") {
          const data = Buffer.alloc(call.length, index + 1);
          data.copy(expected, call.offset);
          bench.frames.data(call.offset, data, { unit: call.unit });
          if (call.unit && data.length <= FRAME_DISK_BYTES_MAX) units.push(data);
        } else {
          expected.fill(0, call.offset, call.offset + call.length);
          bench.frames.zeros(call.offset, call.length, call.do);
        }
      }
      bench.frames.flush();
      const disk = Buffer.alloc(WINDOW_BYTES, 0xaa);
      for (const { extents, data } of bench.decoded) {
        for (const [index, { offset, length }] of extents.entries()) {
          const content = data[index];
          if (content === null || content === undefined) disk.fill(0, offset, offset + length);
          else content.copy(disk, offset);
        }
      }
      expect(disk.equals(expected)).toBe(true);
      const frames = bench.decoded.map(({ data }) =>
        Buffer.concat(data.filter((each) => each !== null)),
      );
      for (const unit of units) {
        expect(frames.some((frame) => frame.includes(unit))).toBe(true);
      }
    });
    fc.assert(property, { seed, numRuns: 100 });
  });
});

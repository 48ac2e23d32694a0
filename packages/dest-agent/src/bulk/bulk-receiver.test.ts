import { beforeEach, describe, expect, test } from "vitest";
import { FrameKind, limits, putExtent, sealFrame, type FrameHeader } from "@vmferry/protocol";
import { BulkReceiver, type ArrivedFrame, type FrameTarget } from "./bulk-receiver.ts";

const { EXTENT_BYTES, FRAME_HEADER_BYTES, RUN_BYTES } = limits;
const CREDIT_BYTES = 1024 * 1024;
const PLAIN: FrameHeader = { kind: 1, encoding: 1, pass: 0, sequence: 0, block: 0, runs: 0 };

/** Keeps what it is handed. */
class Target implements FrameTarget {
  readonly frames: ArrivedFrame[] = [];

  arrived(arrived: ArrivedFrame): void {
    this.frames.push(arrived);
  }

  finish(): void {
    for (const { done } of this.frames.splice(0)) done();
  }
}

let ram: Target;
let disks: Target;
let credit: number[];
let garbageCalls: number;
let receiver: BulkReceiver;

function begin({ withDisks = true, creditBytes = CREDIT_BYTES } = {}): void {
  ram = new Target();
  disks = new Target();
  credit = [];
  garbageCalls = 0;
  receiver = new BulkReceiver({
    connections: 2,
    creditBytes,
    ram,
    disks: withDisks ? disks : null,
    onCredit: (bytes) => credit.push(bytes),
    onGarbage: () => garbageCalls++,
  });
}

beforeEach(() => {
  begin();
});

function frame(header: Partial<FrameHeader>, payloadBytes = 0): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payloadBytes);
  if (header.kind === FrameKind.DISK) {
    putExtent(bytes, { frameStart: 0, index: 0 }, { operation: 3, offset: 0, length: 512 });
  }
  sealFrame(bytes, { ...PLAIN, ...header });
  return bytes;
}

function stream(payloadBytes: number, sequence = 0): Buffer {
  return frame({ kind: FrameKind.STREAM, sequence }, payloadBytes);
}

function pages(sequence = 0): Buffer {
  return frame({ kind: FrameKind.PAGES, runs: 1, sequence }, RUN_BYTES);
}

function disk(sequence = 0): Buffer {
  return frame({ kind: FrameKind.DISK, runs: 1, sequence }, EXTENT_BYTES);
}

describe("a frame", () => {
  test.each([
    ["STREAM", FrameKind.STREAM, "ram"],
    ["BARRIER", FrameKind.BARRIER, "ram"],
    ["RAM_END", FrameKind.RAM_END, "ram"],
    ["DISK_END", FrameKind.DISK_END, "disks"],
  ])("of kind %s is handed on as it is, to the %s alone", (_, kind, target) => {
    const bytes = frame({ kind });
    receiver.arrived(1, bytes);
    const [mine, other] = target === "ram" ? [ram, disks] : [disks, ram];
    expect(mine.frames).toEqual([
      {
        connection: 1,
        header: { ...PLAIN, kind },
        frame: bytes,
        done: expect.any(Function) as unknown,
      },
    ]);
    expect(mine.frames[0]!.frame).toBe(bytes);
    expect(other.frames).toEqual([]);
  });

  test("of pages is memory's, and one of a disk is the disks'", () => {
    receiver.arrived(0, pages());
    receiver.arrived(1, disk());
    expect(ram.frames.map(({ header }) => header.kind)).toEqual([FrameKind.PAGES]);
    expect(disks.frames.map(({ header }) => header.kind)).toEqual([FrameKind.DISK]);
  });

  test.each([
    ["DISK", disk()],
    ["DISK_END", frame({ kind: FrameKind.DISK_END })],
  ])("of kind %s breaks the protocol when no disk is copied", (_, bytes) => {
    begin({ withDisks: false });
    expect(() => {
      receiver.arrived(0, bytes);
    }).toThrow("frame of a disk that was not offered");
    expect([ram.frames, disks.frames]).toEqual([[], []]);
  });

  test("that was damaged is handed to nobody", () => {
    const bytes = stream(10);
    bytes[FRAME_HEADER_BYTES]! ^= 1;
    expect(() => {
      receiver.arrived(0, bytes);
    }).toThrow(expect.objectContaining({ code: "frame-corrupt" }));
    expect(ram.frames).toEqual([]);
  });

  test("is counted on its own connection, whatever its kind", () => {
    receiver.arrived(0, stream(1, 0));
    receiver.arrived(0, disk(1));
    receiver.arrived(1, disk(0));
    receiver.arrived(0, frame({ kind: FrameKind.BARRIER, sequence: 2 }));
    receiver.arrived(1, frame({ kind: FrameKind.DISK_END, sequence: 1 }));
    expect(ram.frames.length + disks.frames.length).toBe(5);
  });

  test.each([0, 2, 2 ** 32])("that comes second is number 1 and not %i", (sequence) => {
    receiver.arrived(0, disk(0));
    expect(() => {
      receiver.arrived(0, disk(sequence));
    }).toThrow("frame sequence");
    expect(disks.frames).toHaveLength(1);
  });
});

describe("credit", () => {
  test("is one account for memory and disks, given back when a frame is done", () => {
    const sent = [stream(100, 0), pages(1), disk(2)];
    for (const bytes of sent) receiver.arrived(0, bytes);
    expect(credit).toEqual([]);
    ram.finish();
    expect(credit).toEqual([]);
    disks.finish();
    expect(credit).toEqual([sent.reduce((sum, bytes) => sum + bytes.length, 0)]);
  });

  test("is not spent on frames that carry nothing", () => {
    begin({ creditBytes: 0 });
    for (const [sequence, kind] of [
      FrameKind.BARRIER,
      FrameKind.RAM_END,
      FrameKind.DISK_END,
    ].entries()) {
      receiver.arrived(0, frame({ kind, sequence }));
    }
    ram.finish();
    disks.finish();
    expect(credit).toEqual([]);
  });

  test.each([
    ["STREAM", stream(8)],
    ["PAGES", pages()],
    ["DISK", disk()],
  ])("is spent on the whole %s frame, and no frame goes beyond it", (_, bytes) => {
    begin({ creditBytes: bytes.length });
    receiver.arrived(0, bytes);
    begin({ creditBytes: bytes.length - 1 });
    expect(() => {
      receiver.arrived(0, bytes);
    }).toThrow("credit exceeded");
    expect([ram.frames, disks.frames]).toEqual([[], []]);
  });

  test("of one target is used up by the other's frames as well", () => {
    begin({ creditBytes: 3 * disk().length - 1 });
    receiver.arrived(0, disk(0));
    receiver.arrived(0, disk(1));
    expect(() => {
      receiver.arrived(1, stream(EXTENT_BYTES));
    }).toThrow("credit exceeded");
  });
});

describe("what was received", () => {
  test("is counted in whole frames, those that cost nothing included", () => {
    receiver.arrived(0, stream(100, 0));
    receiver.arrived(0, frame({ kind: FrameKind.DISK_END, sequence: 1 }));
    expect(receiver.wireBytes).toBe(100 + 2 * FRAME_HEADER_BYTES);
  });

  test("is garbage that is told of every 16 MiB", () => {
    const bytes = stream(256 * 1024 - FRAME_HEADER_BYTES);
    for (let sequence = 0; sequence < 63; sequence++) {
      sealFrame(bytes, { ...PLAIN, sequence });
      receiver.arrived(0, bytes);
      ram.finish();
    }
    expect(garbageCalls).toBe(0);
    sealFrame(bytes, { ...PLAIN, sequence: 63 });
    receiver.arrived(0, bytes);
    expect(garbageCalls).toBe(1);
  });
});

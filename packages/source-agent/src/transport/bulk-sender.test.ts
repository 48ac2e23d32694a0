import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import { FrameEncoding, FrameKind, limits, openFrame, type FrameHeader } from "@vmferry/protocol";
import { BulkSender, type BulkConnection, type OutboundFrame } from "./bulk-sender.ts";
import { RestlessClock } from "./restless-clock.ts";

const { CREDIT_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_STREAM_BYTES_MAX } = limits;
const BURST_MS = 50;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

interface Sent {
  readonly connection: number;
  readonly header: FrameHeader;
  readonly bytes: number;
}

/** Connections that take everything; their buffers are as full as a test says. */
class Wire {
  readonly sent: Sent[] = [];
  readonly buffered: number[];
  readonly connections: readonly BulkConnection[];

  constructor(count: number) {
    const buffered = Array.from({ length: count }, () => 0);
    this.buffered = buffered;
    this.connections = buffered.map((_, connection) => ({
      get bufferedBytes(): number {
        return buffered[connection]!;
      },
      send: (frame: Buffer, flushed: () => void): void => {
        this.sent.push({ connection, header: openFrame(frame), bytes: frame.length });
        flushed();
      },
    }));
  }

  get sentBytes(): number {
    return this.sent.reduce((sum, { bytes }) => sum + bytes, 0);
  }
}

interface BenchOptions {
  readonly connections?: number;
  readonly creditBytes?: number;
  readonly bandwidth?: number | null;
  readonly clock?: Clock;
}

class Bench {
  readonly wire: Wire;
  readonly out: BulkSender;
  readonly clock = new ManualClock();
  idleCalls = 0;

  constructor(options: BenchOptions = {}) {
    this.wire = new Wire(options.connections ?? 1);
    this.out = new BulkSender({
      connections: this.wire.connections,
      creditBytes: options.creditBytes ?? CREDIT_BYTES_MAX,
      bandwidthBytesPerSecond: options.bandwidth ?? null,
      clock: options.clock ?? this.clock,
      onFailed: (error) => {
        throw error;
      },
      onIdle: () => {
        this.idleCalls++;
      },
    });
  }
}

function frame(
  kind: FrameKind,
  payloadBytes: number,
  rest: Partial<OutboundFrame> = {},
): OutboundFrame {
  return {
    view: Buffer.alloc(FRAME_HEADER_BYTES + payloadBytes),
    kind,
    encoding: FrameEncoding.RAW,
    pass: 0,
    block: 0,
    runs: kind === FrameKind.PAGES || kind === FrameKind.DISK ? 1 : 0,
    flushed: () => undefined,
    ...rest,
  };
}

function pages(count: number, rest: Partial<OutboundFrame> = {}): OutboundFrame {
  return frame(FrameKind.PAGES, limits.RUN_BYTES + count * limits.PAGE_BYTES, rest);
}

const FULL_BYTES = pages(limits.FRAME_PAGES_MAX).view.length;

describe("frames", () => {
  test("go out at once, in order, numbered from 0 on each connection", () => {
    const { wire, out } = new Bench();
    for (let pass = 0; pass < 5; pass++) out.enqueue(pages(1, { pass }));
    expect(wire.sent.map(({ header }) => [header.sequence, header.pass])).toEqual([
      [0, 0],
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ]);
  });

  test("of pages take the connection that has least to do", () => {
    const { wire, out } = new Bench({ connections: 3 });
    wire.buffered[0] = 500;
    wire.buffered[1] = 20;
    wire.buffered[2] = 400;
    out.enqueue(pages(1));
    wire.buffered[1] = 900;
    out.enqueue(pages(1));
    expect(wire.sent.map(({ connection }) => connection)).toEqual([1, 2]);
    expect(wire.sent.map(({ header }) => header.sequence)).toEqual([0, 0]);
  });

  test("that have an order go over connection 0, however busy it is", () => {
    const { wire, out } = new Bench({ connections: 3 });
    wire.buffered[0] = 1e9;
    out.enqueue(frame(FrameKind.STREAM, 100));
    out.enqueue(frame(FrameKind.RAM_END, 0));
    out.enqueue(frame(FrameKind.STREAM, 100));
    expect(wire.sent.map(({ connection }) => connection)).toEqual([0, 0, 0]);
  });

  test("of a disk go over its own connection, however busy it is", () => {
    const { wire, out } = new Bench({ connections: 3 });
    wire.buffered[1] = 1e9;
    for (const block of [0, 1, 4, 2, 3, 1, 23]) {
      out.enqueue(frame(FrameKind.DISK, limits.EXTENT_BYTES, { block }));
    }
    expect(wire.sent.map(({ connection }) => connection)).toEqual([0, 1, 1, 2, 0, 1, 2]);
    expect(wire.sent.map(({ header }) => header.sequence)).toEqual([0, 0, 1, 0, 1, 2, 1]);
  });

  test("give their buffer back when they are flushed, not before", () => {
    const { out } = new Bench({ creditBytes: FRAME_BYTES_MAX });
    const flushed: number[] = [];
    for (const pass of [0, 1]) out.enqueue(pages(64, { pass, flushed: () => flushed.push(pass) }));
    expect(flushed).toEqual([0]);
    out.acknowledged(FULL_BYTES);
    expect(flushed).toEqual([0, 1]);
  });
});

describe("a barrier", () => {
  test("goes over every connection, behind all that was queued before it", () => {
    const { wire, out } = new Bench({ connections: 2, creditBytes: FRAME_BYTES_MAX });
    out.enqueue(pages(64));
    out.enqueue(pages(64));
    out.enqueue({ barrierOfPass: 0 });
    expect(wire.sent).toHaveLength(1);
    out.acknowledged(FULL_BYTES);
    const barriers = wire.sent.filter(({ header }) => header.kind === FrameKind.BARRIER);
    expect(wire.sent).toHaveLength(4);
    expect(barriers.map(({ connection }) => connection)).toEqual([0, 1]);
    expect(barriers.every(({ header }) => header.pass === 0)).toBe(true);
  });

  test("costs no credit", () => {
    const { wire, out } = new Bench({ creditBytes: FRAME_BYTES_MAX });
    out.enqueue(pages(64));
    for (let pass = 0; pass < 100; pass++) out.enqueue({ barrierOfPass: pass });
    expect(wire.sent).toHaveLength(101);
    expect(out.pendingBytes).toBe(FULL_BYTES);
  });
});

describe("the end of the disks", () => {
  test("goes over every connection, behind all that was queued before it, and costs no credit", () => {
    const { wire, out } = new Bench({ connections: 2, creditBytes: FRAME_BYTES_MAX });
    const disk = (block: number): OutboundFrame =>
      frame(FrameKind.DISK, limits.EXTENT_BYTES + limits.FRAME_DISK_BYTES_MAX, { block });
    for (const block of [1, 0]) out.enqueue(disk(block));
    out.enqueue({ diskEnd: true });
    expect(wire.sent.map(({ header }) => header.kind)).toEqual([FrameKind.DISK]);
    out.acknowledged(disk(1).view.length);
    expect(wire.sent.map(({ connection, header }) => [connection, header.kind])).toEqual([
      [1, FrameKind.DISK],
      [0, FrameKind.DISK],
      [0, FrameKind.DISK_END],
      [1, FrameKind.DISK_END],
    ]);
    expect(wire.sent.map(({ header }) => header.sequence)).toEqual([0, 0, 1, 1]);
    expect(out.pendingBytes).toBe(disk(0).view.length);
  });
});

describe("entries that are made late", () => {
  test("are asked for one at a time, when there is room for them", () => {
    const { wire, out } = new Bench({ creditBytes: FRAME_BYTES_MAX });
    let made = 0;
    out.enqueue({ next: () => (made < 3 ? pages(64, { pass: made++ }) : null) });
    out.enqueue(frame(FrameKind.RAM_END, 0));
    expect(made).toBe(1);
    out.acknowledged(FULL_BYTES);
    expect(made).toBe(2);
    out.acknowledged(FULL_BYTES);
    out.acknowledged(FULL_BYTES);
    expect(wire.sent.map(({ header }) => header.kind)).toEqual([2, 2, 2, FrameKind.RAM_END]);
  });

  test("are called when everything before them was handed over", () => {
    const { wire, out } = new Bench({ creditBytes: FRAME_BYTES_MAX });
    let sentThen = -1;
    out.enqueue(pages(64));
    out.enqueue(pages(64));
    out.enqueue({ call: () => (sentThen = wire.sent.length) });
    expect(sentThen).toBe(-1);
    out.acknowledged(FULL_BYTES);
    expect(sentThen).toBe(2);
  });
});

describe("credit", () => {
  test("is never exceeded, and everything goes out as it comes back", () => {
    const { wire, out } = new Bench({ creditBytes: 3 * FRAME_BYTES_MAX });
    for (let i = 0; i < 20; i++) out.enqueue(pages(64));
    let acknowledged = 0;
    for (let i = 0; i < 20; i++) {
      expect(wire.sentBytes - acknowledged).toBeLessThanOrEqual(3 * FRAME_BYTES_MAX);
      out.acknowledged(FULL_BYTES);
      acknowledged += FULL_BYTES;
    }
    expect(wire.sent).toHaveLength(20);
    expect(out.pendingBytes).toBe(0);
  });

  test("is spent on opaque bytes and on disks as well, but not on the end of RAM", () => {
    const { out } = new Bench();
    out.enqueue(frame(FrameKind.STREAM, 100));
    out.enqueue(frame(FrameKind.DISK, 16));
    out.enqueue(frame(FrameKind.RAM_END, 0));
    expect(out.pendingBytes).toBe(132 + 48);
    expect(out.sentBytes).toBe(132 + 48 + 32);
  });

  test("that was never spent is not taken back", () => {
    const { out } = new Bench();
    out.enqueue(frame(FrameKind.STREAM, 100));
    expect(() => {
      out.acknowledged(133);
    }).toThrow("credit for more than was sent");
  });
});

describe("the window", () => {
  /** Measures the link at so many bytes a second, with nothing under way afterwards. */
  function measure({ out, clock }: Bench, bytesPerSecond: number): void {
    const bytes = bytesPerSecond / 10;
    let left = bytes;
    out.acknowledged(0);
    clock.advance(100);
    while (left > 0) {
      const payload = Math.min(left - FRAME_HEADER_BYTES, FRAME_STREAM_BYTES_MAX);
      out.enqueue(frame(FrameKind.STREAM, payload));
      left -= payload + FRAME_HEADER_BYTES;
    }
    out.acknowledged(bytes);
    expect(out.rate.bytesPerSecond).toBeCloseTo(bytesPerSecond);
  }

  function underWay(bench: Bench): number {
    const before = bench.out.sentBytes;
    for (let i = 0; i < 100; i++) bench.out.enqueue(pages(64));
    return bench.out.sentBytes - before;
  }

  test("lets 4 MiB go before the link was measured", () => {
    const bytes = underWay(new Bench());
    expect(bytes).toBeGreaterThan(4 * 2 ** 20);
    expect(bytes).toBeLessThanOrEqual(4 * 2 ** 20 + FULL_BYTES);
  });

  test("keeps some 40 ms of the link under way", () => {
    const bench = new Bench();
    measure(bench, 30_000_000);
    const bytes = underWay(bench);
    expect(bytes).toBeGreaterThan(1_200_000);
    expect(bytes).toBeLessThanOrEqual(1_200_000 + FULL_BYTES);
  });

  test("is wider by two round trips", () => {
    const bench = new Bench();
    measure(bench, 30_000_000);
    bench.out.setRoundTrip(30);
    expect(underWay(bench)).toBeGreaterThan(3_000_000);
  });

  test("is never narrower than half a MiB, however slow the link is", () => {
    const bench = new Bench();
    measure(bench, 20_000);
    expect(underWay(bench)).toBeGreaterThan(512 * 1024);
  });

  test("tells the filler of the queue to stop, and to go on", () => {
    const bench = new Bench({ creditBytes: FRAME_BYTES_MAX });
    expect(bench.out.idle).toBe(true);
    bench.out.enqueue(pages(64));
    expect(bench.out.idle).toBe(false);
    expect(bench.idleCalls).toBe(0);
    bench.out.acknowledged(FULL_BYTES);
    expect(bench.out.idle).toBe(true);
    expect(bench.idleCalls).toBe(1);
  });
});

describe("the bandwidth limit", () => {
  test("spreads frames over time", () => {
    const { wire, out, clock } = new Bench({ bandwidth: FULL_BYTES * 10 });
    for (let i = 0; i < 5; i++) out.enqueue(pages(64));
    const counts = [0, 99, 1, 99, 1, 300].map((ms) => {
      clock.advance(ms);
      return wire.sent.length;
    });
    expect(counts).toEqual([1, 1, 2, 2, 3, 5]);
  });

  test("says that there is room when its time has come, without any other event", () => {
    const bench = new Bench({ bandwidth: FULL_BYTES * 10 });
    bench.out.enqueue(pages(64));
    bench.out.acknowledged(FULL_BYTES);
    expect([bench.out.idle, bench.idleCalls]).toEqual([false, 0]);
    bench.clock.advance(101);
    expect([bench.out.idle, bench.idleCalls]).toEqual([true, 1]);
  });

  test("that is lifted lets everything go at once", () => {
    const { wire, out } = new Bench({ bandwidth: 4096 });
    for (let i = 0; i < 3; i++) out.enqueue(pages(64));
    expect(wire.sent).toHaveLength(1);
    out.setBandwidthLimit(null);
    expect(wire.sent).toHaveLength(3);
  });

  test("that is raised counts from now on, not after the wait that the old one asked for", () => {
    const { wire, out, clock } = new Bench({ bandwidth: 4096 });
    out.enqueue(pages(64));
    out.enqueue(pages(64));
    out.acknowledged(FULL_BYTES);
    // The old limit would have the second frame wait for a minute.
    out.setBandwidthLimit(FULL_BYTES * 10);
    clock.advance(150);
    expect(wire.sent).toHaveLength(2);
  });

  test("leaves no timer behind when the sender is stopped, and nothing goes out any more", () => {
    const { wire, out, clock } = new Bench({ bandwidth: 4096 });
    out.enqueue(pages(64));
    out.enqueue(pages(64));
    out.stop();
    expect(clock.timerCount).toBe(0);
    clock.advance(1e6);
    expect(wire.sent).toHaveLength(1);
  });

  test(`wakes itself, with a dest that acknowledges late (SEED=${seed})`, () => {
    const property = fc.property(
      fc.integer({ min: 5_000_000, max: 100_000_000 }),
      fc.array(fc.double({ min: 0, max: 3, noNaN: true }), { minLength: 1, maxLength: 20 }),
      // All of it fits the window, so that nothing has to be acknowledged.
      fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 15 }),
      (bandwidth, jitters, counts) => {
        const clock = new RestlessClock(jitters);
        const { wire, out } = new Bench({ bandwidth, clock });
        for (const count of counts) out.enqueue(pages(count));
        while (wire.sent.length < counts.length) {
          expect(clock.timerCount, "somebody is going to wake the sender").toBe(1);
          clock.advanceToNext();
        }
      },
    );
    fc.assert(property, { seed, numRuns: 150 });
  });

  test(`is kept and never stalls, whatever time does between two looks at it (SEED=${seed})`, () => {
    const step = fc.record({
      frames: fc.array(fc.integer({ min: 1, max: 64 }), { maxLength: 6 }),
      stepMs: fc.double({ min: 0, max: 30, noNaN: true }),
    });
    const property = fc.property(
      // A frame's time on the link is in the order of what passes between two looks.
      fc.integer({ min: 10_000_000, max: 300_000_000 }),
      fc.array(fc.double({ min: 0, max: 3, noNaN: true }), { minLength: 1, maxLength: 20 }),
      fc.array(step, { minLength: 1, maxLength: 40 }),
      (bandwidth, jitters, steps) => {
        const clock = new RestlessClock(jitters);
        const { wire, out } = new Bench({ bandwidth, clock, creditBytes: 3 * FRAME_BYTES_MAX });
        const largest = FULL_BYTES;
        let queued = 0;
        let acknowledged = 0;
        const acknowledge = (): void => {
          const owed = wire.sentBytes - acknowledged;
          acknowledged += owed;
          out.acknowledged(owed);
        };
        const check = (): void => {
          const allowed = (bandwidth * (clock.nowMs() + BURST_MS)) / 1000 + largest;
          expect(wire.sentBytes).toBeLessThanOrEqual(allowed);
        };
        for (const { frames, stepMs } of steps) {
          for (const count of frames) {
            out.enqueue(pages(count));
            queued++;
          }
          clock.advance(stepMs);
          check();
          acknowledge();
        }
        // From here on only credit and timers move anything.
        for (let turn = 0; wire.sent.length < queued; turn++) {
          expect(turn, "it gets on").toBeLessThan(10_000);
          if (wire.sentBytes > acknowledged) acknowledge();
          else {
            expect(clock.timerCount, "somebody is going to wake the sender").toBeGreaterThan(0);
            clock.advanceToNext();
          }
          check();
        }
        expect(out.pendingBytes).toBe(wire.sentBytes - acknowledged);
      },
    );
    fc.assert(property, { seed, numRuns: 80 });
  });
});

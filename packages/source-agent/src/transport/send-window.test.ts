import { describe, expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import { BulkSender } from "./bulk-sender.ts";

describe("a window of the owner's choice", () => {
  function sender(
    bandwidthBytesPerSecond: number | null,
    frames = 2000,
    { creditBytes = limits.CREDIT_BYTES_MAX, bytesFirst = 20_000 } = {},
  ): {
    wire: { sentBytes: number };
    out: BulkSender;
    clock: ManualClock;
  } {
    const wire = { sentBytes: 0 };
    const clock = new ManualClock();
    const send = (bytes: Buffer): void => {
      wire.sentBytes += bytes.length;
    };
    const out = new BulkSender({
      connections: [{ bufferedBytes: 0, send }],
      creditBytes,
      bandwidthBytesPerSecond,
      clock,
      window: { ms: 5, roundTrips: 1, bytesMin: 10_000, bytesFirst },
      onIdle: () => undefined,
      onFailed: (error) => {
        throw error;
      },
    });
    const rest = {
      kind: FrameKind.STREAM,
      encoding: FrameEncoding.RAW,
      pass: 0,
      block: 0,
      runs: 0,
    };
    for (let i = 0; i < frames; i++) {
      out.enqueue({ ...rest, view: Buffer.alloc(1000), flushed: () => undefined });
    }
    return { wire, out, clock };
  }

  test("holds at first, at least, and then as the link and its round trip have it", () => {
    const { wire, out, clock } = sender(null);
    expect(wire.sentBytes).toBe(21_000);
    out.acknowledged(1000);
    clock.advance(100);
    // 10 kB in 100 ms are 100 kB/s: 5 ms of it are less than the least.
    out.acknowledged(9000);
    expect(wire.sentBytes).toBe(22_000);
    out.setRoundTrip(145);
    out.acknowledged(1000);
    // 150 ms of it.
    expect(wire.sentBytes - 11_000).toBe(16_000);
  });

  test("bytes that went another way count against the limit", () => {
    const { wire, out, clock } = sender(100_000);
    const before = wire.sentBytes;
    out.spentElsewhere(50_000);
    clock.advance(400);
    expect(wire.sentBytes).toBe(before);
    clock.advance(200);
    expect(wire.sentBytes).toBeGreaterThan(before);
  });

  test("gives the link enough to do when half of it is under way", () => {
    const { out } = sender(null, 10);
    expect(out.isBusy).toBe(true);
    out.acknowledged(1);
    expect(out.isBusy).toBe(false);
  });

  test("gives it enough to do with half of the dest's credit, where that is less", () => {
    const { out } = sender(null, 9, {
      creditBytes: limits.FRAME_BYTES_MAX + 20_000,
      bytesFirst: 1_000_000,
    });
    expect(out.isBusy).toBe(false);
    const view = Buffer.alloc(1000);
    const rest = { encoding: FrameEncoding.RAW, pass: 0, block: 0, runs: 0 };
    out.enqueue({ ...rest, kind: FrameKind.STREAM, view, flushed: () => undefined });
    expect(out.isBusy).toBe(true);
  });

  test("leaves the link idle in vain while the limit of the bandwidth is what everybody waits for", () => {
    const { out, clock } = sender(100_000, 1);
    out.acknowledged(1000);
    expect(out.isBusy).toBe(true);
    clock.advance(100);
    expect(out.isBusy).toBe(false);
  });
});

import { ManualClock } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import { expect, test } from "vitest";
import { BulkSender, type OutboundFrame } from "./bulk-sender.ts";

const FRAME_BYTES = 65_536;
const STEP_MS = 10;

function frame(): OutboundFrame {
  const view = Buffer.alloc(FRAME_BYTES);
  const { DISK } = FrameKind;
  const place = { kind: DISK, encoding: FrameEncoding.RAW, pass: 0, block: 0, runs: 1 };
  return { view, ...place, flushed: () => undefined };
}

test.each([null, FRAME_BYTES * 2000])(
  "a bandwidth limit that is lowered holds at once, whatever was sent before it (from %s)",
  (before) => {
    const clock = new ManualClock();
    let sentFrames = 0;
    const send = (): void => {
      sentFrames += 1;
    };
    const connection = { send, bufferedBytes: 0 };
    const out = new BulkSender({
      connections: [connection],
      creditBytes: limits.CREDIT_BYTES_MAX,
      bandwidthBytesPerSecond: before,
      clock,
      onIdle: () => undefined,
      onFailed: (error) => {
        throw error;
      },
    });
    /** The link is faster than any limit; there is always more to send. */
    const run = (ms: number): number => {
      const framesBefore = sentFrames;
      for (let passedMs = 0; passedMs < ms; passedMs += STEP_MS) {
        while (out.queuedBytes < 16 * FRAME_BYTES) out.enqueue(frame());
        out.acknowledged(out.pendingBytes - out.queuedBytes);
        clock.advance(STEP_MS);
      }
      return sentFrames - framesBefore;
    };
    expect(run(500)).toBeGreaterThan(200);
    out.setBandwidthLimit(FRAME_BYTES * 10);
    expect(out.rate.bytesPerSecond).toBeLessThanOrEqual(FRAME_BYTES * 10);
    // Ten a second, give or take the one that the balance may go below zero for.
    const frames = run(1000);
    expect(frames).toBeGreaterThanOrEqual(9);
    expect(frames).toBeLessThanOrEqual(11);
    out.stop();
  },
);

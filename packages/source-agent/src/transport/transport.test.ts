import { describe, expect, test, vi } from "vitest";
import { ManualClock } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import type { OutboundFrame } from "./bulk-sender.ts";
import { Transport, type Filler } from "./transport.ts";

const { CREDIT_BYTES_MAX, EXTENT_BYTES, FRAME_DISK_BYTES_MAX, FRAME_HEADER_BYTES } = limits;
const HEAD_BYTES = FRAME_HEADER_BYTES + EXTENT_BYTES;
/** What is under way before anything is known of the link. */
const WINDOW_BYTES = 4 * 1024 * 1024;

function frame(dataBytes = FRAME_DISK_BYTES_MAX): OutboundFrame {
  return {
    view: Buffer.alloc(HEAD_BYTES + dataBytes, "compressible "),
    kind: FrameKind.DISK,
    encoding: FrameEncoding.RAW,
    pass: 0,
    block: 0,
    runs: 1,
    flushed: () => undefined,
  };
}

class Bench {
  readonly clock = new ManualClock();
  /** The dest acknowledges everything at once. */
  fast = false;
  unacknowledged = 0;
  sentFrames = 0;
  readonly transport: Transport;

  constructor(compression = false) {
    this.transport = new Transport({
      connections: [
        {
          bufferedBytes: 0,
          send: (view, flushed) => {
            this.sentFrames++;
            this.unacknowledged += view.length;
            flushed();
            if (this.fast) queueMicrotask(this.acknowledge);
          },
        },
      ],
      creditBytes: CREDIT_BYTES_MAX,
      bandwidthBytesPerSecond: null,
      compression,
      clock: this.clock,
      onFailed: (error) => {
        throw error;
      },
    });
  }

  readonly acknowledge = (): void => {
    const bytes = this.unacknowledged;
    this.unacknowledged = 0;
    if (bytes > 0) this.transport.out.acknowledged(bytes);
  };

  filler(fill: () => void = () => undefined): Filler {
    const filler = { fill };
    this.transport.addFiller(filler);
    return filler;
  }

  /** More than may be under way. */
  fillWindow(): void {
    for (let bytes = 0; bytes <= WINDOW_BYTES; bytes += FRAME_DISK_BYTES_MAX) {
      this.transport.frames.enqueue(frame());
    }
    this.transport.frames.enqueue(frame());
    expect([this.transport.ready, this.transport.queuedBytes > 0]).toEqual([false, true]);
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}

describe("fillers", () => {
  test("are asked when there is room, and take turns in being the first", () => {
    const bench = new Bench();
    const asked: string[] = [];
    for (const name of ["a", "b", "c"]) bench.filler(() => asked.push(name));
    for (let i = 0; i < 3; i++) bench.transport.frames.enqueue(frame(1));
    expect(asked.join("")).toBe("abcbcacab");
  });

  test("are not asked while the link takes no more, and are when it does again", () => {
    const bench = new Bench();
    const fill = vi.fn();
    bench.fillWindow();
    bench.filler(fill);
    bench.transport.frames.enqueue(frame(1));
    expect(fill).not.toHaveBeenCalled();
    bench.acknowledge();
    expect(fill).toHaveBeenCalled();
  });

  test("are not asked once nothing is sent any more", () => {
    const bench = new Bench();
    const fill = vi.fn();
    bench.fillWindow();
    bench.filler(fill);
    bench.transport.stop();
    bench.acknowledge();
    expect([fill.mock.calls.length, bench.transport.ready]).toEqual([0, false]);
  });
});

describe("whoever waits for the link", () => {
  test("does not wait while it takes more", async () => {
    await new Bench().transport.caughtUp();
  });

  test("waits until what was queued is on its way", async () => {
    const bench = new Bench();
    bench.fillWindow();
    const caughtUp = vi.fn();
    void bench.transport.caughtUp().then(caughtUp);
    await settle();
    expect(caughtUp).not.toHaveBeenCalled();
    bench.acknowledge();
    await settle();
    expect(caughtUp).toHaveBeenCalled();
  });

  test("goes on although fillers keep the compressor at work all the time", async () => {
    const bench = new Bench(true);
    // From here on there is enough under way for frames to be compressed.
    for (let bytes = 0; bytes < WINDOW_BYTES / 2; bytes += FRAME_DISK_BYTES_MAX) {
      bench.transport.frames.enqueue(frame());
    }
    bench.fast = true;
    let isOver = false;
    const fill = (): void => {
      while (!isOver && bench.transport.ready) bench.transport.frames.enqueue(frame());
    };
    bench.filler(fill);
    fill();
    // Mirrored writes, for which nobody was asked.
    for (let i = 0; i < 30; i++) bench.transport.frames.enqueue(frame());
    expect(bench.transport.queuedBytes).toBeGreaterThan(WINDOW_BYTES);
    let leastQueued = Infinity;
    const watch = setInterval(() => {
      leastQueued = Math.min(leastQueued, bench.transport.queuedBytes);
    }, 0);
    await bench.transport.caughtUp();
    clearInterval(watch);
    expect(leastQueued).toBeGreaterThan(0);
    expect(bench.transport.queuedBytes).toBeLessThan(WINDOW_BYTES);
    isOver = true;
    bench.transport.stop();
  });

  test("does not wait for a link that is away, and does again when it is back", async () => {
    const bench = new Bench();
    bench.fillWindow();
    const waiting = bench.transport.caughtUp();
    bench.transport.linkIsAway();
    await waiting;
    await bench.transport.caughtUp();
    bench.transport.linkIsBack();
    expect([bench.transport.isAway, bench.transport.reconnects]).toEqual([false, 1]);
    const caughtUp = vi.fn();
    void bench.transport.caughtUp().then(caughtUp);
    await settle();
    expect(caughtUp).not.toHaveBeenCalled();
  });

  test("does not wait for a transport that was stopped", async () => {
    const bench = new Bench();
    bench.fillWindow();
    const waiting = bench.transport.caughtUp();
    bench.transport.stop();
    await waiting;
    await bench.transport.caughtUp();
    // Or they would be behind for ever.
    bench.transport.frames.enqueue(frame());
    expect(bench.transport.queuedBytes).toBe(0);
  });
});

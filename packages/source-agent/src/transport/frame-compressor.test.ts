import { zstdDecompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import type { BulkSender, OutboundEntry, OutboundFrame } from "./bulk-sender.ts";
import { FrameCompressor } from "./frame-compressor.ts";

const { EXTENT_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES, RUN_BYTES } = limits;
const HEAD_BYTES = FRAME_HEADER_BYTES + RUN_BYTES;

/** What a BulkSender would have been given. */
class Sink {
  readonly entries: OutboundEntry[] = [];
  idle = true;
  isBusy = true;
  pendingBytes = 0;

  enqueue(entry: OutboundEntry): void {
    this.entries.push(entry);
  }
}

function compressor(enabled = true): { sink: Sink; stage: FrameCompressor } {
  const sink = new Sink();
  const stage = new FrameCompressor({
    out: sink as unknown as BulkSender,
    enabled,
    guestWaits: () => false,
    onReady: () => undefined,
    onFailed: (error) => {
      throw error;
    },
  });
  return { sink, stage };
}

function frame(pass: number, pages: number, flushed: () => void = () => undefined): OutboundFrame {
  const view = Buffer.alloc(HEAD_BYTES + pages * PAGE_BYTES, "compressible ");
  const { PAGES } = FrameKind;
  return { view, kind: PAGES, encoding: FrameEncoding.RAW, pass, block: 0, runs: 1, flushed };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe("the frame compressor", () => {
  it("passes frames on as they are while the link would stand still otherwise", () => {
    const { sink, stage } = compressor();
    sink.isBusy = false;
    stage.enqueue(frame(1, 4));
    expect(sink.entries).toMatchObject([{ encoding: FrameEncoding.RAW }]);
  });

  it("lets such a frame wait for those that are being compressed", async () => {
    const { sink, stage } = compressor();
    stage.enqueue(frame(1, 64));
    sink.isBusy = false;
    stage.enqueue(frame(1, 1));
    expect(sink.entries).toEqual([]);
    await until(() => sink.entries.length === 2);
    expect(sink.entries).toMatchObject([
      { encoding: FrameEncoding.ZSTD },
      { encoding: FrameEncoding.RAW },
    ]);
  });

  it("never compresses for a dest that does not have zstd", () => {
    const { sink, stage } = compressor(false);
    stage.enqueue(frame(1, 4));
    expect(sink.entries).toMatchObject([{ encoding: FrameEncoding.RAW }]);
  });

  it("leaves pages alone while they must not be compressed, and disks not", async () => {
    const { sink, stage } = compressor();
    stage.compressPages(false);
    stage.enqueue(frame(1, 4));
    expect(sink.entries).toMatchObject([{ encoding: FrameEncoding.RAW }]);
    stage.enqueue({ ...frame(0, 4), kind: FrameKind.DISK });
    await until(() => sink.entries.length === 2);
    expect(sink.entries[1]).toMatchObject({ encoding: FrameEncoding.ZSTD });
  });

  it("knows what a byte becomes on the wire, by all frames with data", async () => {
    const { sink, stage } = compressor();
    expect(stage.wireShare).toBe(1);
    stage.enqueue(frame(1, 4));
    await until(() => sink.entries.length === 1);
    expect(stage.wireShare).toBeLessThan(0.1);
    sink.isBusy = false;
    stage.enqueue(frame(1, 4));
    expect(stage.wireShare).toBeGreaterThan(0.5);
    expect(stage.wireShare).toBeLessThan(0.6);
  });

  it("sends each frame in a buffer of its own until the dest has it", async () => {
    const { sink, stage } = compressor();
    const views: Buffer[] = [];
    const sendOne = async (): Promise<OutboundFrame> => {
      stage.enqueue(frame(1, 4));
      await until(() => sink.entries.length === 1);
      const sent = sink.entries.pop() as OutboundFrame;
      views.push(sent.view);
      return sent;
    };
    const first = await sendOne();
    await sendOne();
    first.flushed();
    await sendOne();
    expect(views[1]!.buffer).not.toBe(views[0]!.buffer);
    expect(views[2]!.buffer).toBe(views[0]!.buffer);
  });

  it("compresses the data of a frame and leaves its run table readable", async () => {
    const { sink, stage } = compressor();
    const given = frame(1, 4);
    const data = Buffer.from(given.view.subarray(HEAD_BYTES));
    stage.enqueue(given);
    await until(() => sink.entries.length === 1);
    const sent = sink.entries[0] as OutboundFrame;
    expect(sent.encoding).toBe(FrameEncoding.ZSTD);
    expect(sent.view.length).toBeLessThan(data.length / 10);
    expect(zstdDecompressSync(sent.view.subarray(HEAD_BYTES)).equals(data)).toBe(true);
    expect(sent.view.subarray(FRAME_HEADER_BYTES, HEAD_BYTES)).toEqual(
      given.view.subarray(FRAME_HEADER_BYTES, HEAD_BYTES),
    );
  });

  it("compresses the data of a disk and leaves its extent table readable", async () => {
    const { sink, stage } = compressor();
    const head = FRAME_HEADER_BYTES + 2 * EXTENT_BYTES;
    const view = Buffer.alloc(head + 16 * PAGE_BYTES, "compressible ");
    stage.enqueue({ ...frame(0, 1), view, kind: FrameKind.DISK, block: 5, runs: 2 });
    await until(() => sink.entries.length === 1);
    const sent = sink.entries[0] as OutboundFrame;
    expect(sent).toMatchObject({ encoding: FrameEncoding.ZSTD, block: 5, runs: 2 });
    expect(sent.view.subarray(FRAME_HEADER_BYTES, head)).toEqual(
      view.subarray(FRAME_HEADER_BYTES, head),
    );
    expect(zstdDecompressSync(sent.view.subarray(head)).equals(view.subarray(head))).toBe(true);
  });

  it("leaves frames as they are that carry no data", () => {
    const { sink, stage } = compressor();
    const empty = [
      frame(0, 0),
      {
        ...frame(0, 0),
        view: Buffer.alloc(FRAME_HEADER_BYTES + 3 * EXTENT_BYTES),
        kind: FrameKind.DISK,
        runs: 3,
      },
    ];
    for (const each of empty) stage.enqueue(each);
    expect(sink.entries).toEqual(empty);
  });

  it("gives the frame's buffer back as soon as it is compressed", async () => {
    const { sink, stage } = compressor();
    let flushed = 0;
    stage.enqueue(frame(1, 4, () => flushed++));
    await until(() => sink.entries.length === 1);
    expect(flushed).toBe(1);
  });

  it("keeps frames and what stands between them in order, whichever is ready first", async () => {
    const { sink, stage } = compressor();
    stage.enqueue(frame(1, 64));
    stage.enqueue(frame(1, 1));
    stage.enqueue({ barrierOfPass: 1 });
    stage.enqueue(frame(2, 1));
    stage.enqueue({ diskEnd: true });
    await until(() => sink.entries.length === 5);
    const order = sink.entries.map((entry) =>
      "view" in entry ? entry.pass : Object.keys(entry)[0],
    );
    expect(order).toEqual([1, 1, "barrierOfPass", 2, "diskEnd"]);
  });

  it("tells the reader to wait when too many frames are at work", async () => {
    const { sink, stage } = compressor();
    for (let i = 0; i < 6; i++) stage.enqueue(frame(1, 64));
    expect(stage.ready).toBe(false);
    expect(stage.pendingBytes).toBeGreaterThan(6 * 64 * PAGE_BYTES);
    await until(() => sink.entries.length === 6);
    expect(stage.ready).toBe(true);
    expect(stage.pendingBytes).toBe(0);
  });

  it("sends a frame as it is when compressing gains nothing", async () => {
    const { sink, stage } = compressor();
    const given = frame(1, 2);
    crypto.getRandomValues(given.view.subarray(HEAD_BYTES));
    stage.enqueue(given);
    await until(() => sink.entries.length === 1);
    expect(sink.entries[0]).toBe(given);
  });
});

import { describe, expect, test } from "vitest";
import { limits } from "@vmferry/protocol";
import { RamEncoder, RamRecordDecoder } from "@vmferry/qemu";
import type { StreamSink } from "./qemu-sink.ts";
import { ZeroFeed } from "./zero-feed.ts";

const { PAGE_BYTES } = limits;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 2 ** 40 },
  { name: "n".repeat(255), lengthBytes: 2 ** 30 },
];
const SECTION = 4;
const FRAME_BYTES = 5;

/** Reads each write as one section of zero pages. */
class Sections implements StreamSink {
  readonly pages: [number, number][] = [];
  readonly sizes: number[] = [];

  write(bytes: Uint8Array, done: () => void): Promise<void> {
    const section = Buffer.from(bytes);
    this.sizes.push(section.length);
    const decoder = new RamRecordDecoder(BLOCKS, {
      page: () => expect.unreachable(),
      zeroPage: (block, page) => this.pages.push([block, page]),
    });
    expect(section.subarray(0, FRAME_BYTES).toString("hex")).toBe("0200000004");
    const end = decoder.decode(section, FRAME_BYTES);
    expect(decoder.ended).toBe(true);
    expect(section.subarray(end).toString("hex")).toBe("7e00000004");
    done();
    return Promise.resolve();
  }
}

function feed(): ZeroFeed {
  return new ZeroFeed(new RamEncoder({ sectionId: SECTION, blocks: BLOCKS }));
}

describe("runs of zero pages", () => {
  test("become sections of zero records in their order", async () => {
    const zeros = feed();
    const sink = new Sections();
    zeros.add(0, 7, 3);
    zeros.add(0, 2 ** 27, 1);
    zeros.add(1, 0, 2);
    await zeros.write(sink);
    expect(sink.pages).toEqual([
      [0, 7],
      [0, 8],
      [0, 9],
      [0, 2 ** 27],
      [1, 0],
      [1, 1],
    ]);
    expect(sink.sizes).toHaveLength(1);
  });

  test("write nothing when there are none, and are written once only", async () => {
    const zeros = feed();
    const sink = new Sections();
    await zeros.write(sink);
    zeros.add(0, 0, 1);
    await zeros.write(sink);
    await zeros.write(sink);
    expect(sink.pages).toEqual([[0, 0]]);
  });

  test.each([7000, 7224, 7225, 7226, 100_000])(
    "of %i pages are written in bounded pieces",
    async (pages) => {
      for (const block of [0, 1]) {
        const zeros = feed();
        const sink = new Sections();
        zeros.add(block, 5, pages);
        await zeros.write(sink);
        expect(sink.pages).toHaveLength(pages);
        expect(sink.pages.every(([, page], i) => page === 5 + i)).toBe(true);
        expect(Math.max(...sink.sizes)).toBeLessThanOrEqual(64 * 1024);
      }
    },
  );

  test("wait for room: no piece is made before the one before was taken", async () => {
    const zeros = feed();
    let taken = 0;
    let waiting: (() => void) | null = null;
    const sink: StreamSink = {
      write: () => {
        expect(waiting).toBeNull();
        taken++;
        return new Promise((resolve) => {
          waiting = resolve;
        });
      },
    };
    zeros.add(0, 0, (64 * 1024 * 10) / 9);
    const state = { ended: false };
    const writing = zeros.write(sink).then(() => (state.ended = true));
    for (let piece = 1; !state.ended; piece++) {
      expect(taken).toBe(piece);
      const resume = waiting as (() => void) | null;
      waiting = null;
      resume?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await writing;
    expect(taken).toBeGreaterThan(9);
  });

  test("belong to a block and lie inside it", async () => {
    const zeros = feed();
    zeros.add(1, 2 ** 30 / PAGE_BYTES - 1, 2);
    await expect(zeros.write(new Sections())).rejects.toThrow("a page lies inside its block");
  });
});

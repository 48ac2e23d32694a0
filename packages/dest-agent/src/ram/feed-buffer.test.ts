import { describe, expect, test } from "vitest";
import { limits } from "@vmferry/protocol";
import { RamEncoder, RamRecordDecoder, type RamBlock } from "@vmferry/qemu";
import { FeedBuffer } from "./feed-buffer.ts";

const { FRAME_PAGES_MAX, PAGE_BYTES } = limits;
const SECTION = 0x01020304;
const PART_HEAD_BYTES = 5;

function blocksNamed(name: string): readonly RamBlock[] {
  return [
    { name: "pc.ram", lengthBytes: 2 ** 40 },
    { name, lengthBytes: 16 * PAGE_BYTES },
  ];
}

function contentPage(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, `content ${content} `);
}

/** [block, page, content] of each page of a section, which has to be whole and nothing else. */
function pagesOf(section: Buffer, blocks: readonly RamBlock[]): [number, number, string][] {
  const pages: [number, number, string][] = [];
  const decoder = new RamRecordDecoder(blocks, {
    page: (block, page, buffer, offset) => {
      const bytes = buffer.subarray(offset, offset + PAGE_BYTES);
      const text = /^content (\d+) /.exec(bytes.toString("latin1"))?.[1] ?? "?";
      expect(bytes.equals(contentPage(Number(text)))).toBe(true);
      pages.push([block, page, text]);
    },
    zeroPage: () => expect.unreachable(),
  });
  expect(section.subarray(0, PART_HEAD_BYTES).toString("hex")).toBe("0201020304");
  const end = decoder.decode(section, PART_HEAD_BYTES);
  expect(decoder.ended).toBe(true);
  expect(section.subarray(end).toString("hex")).toBe("7e01020304");
  return pages;
}

describe("pages on their way into QEMU", () => {
  test("make one section that QEMU can read, whatever the length of the block's name", () => {
    for (const name of ["b", "/rom@etc/acpi/tables", "n".repeat(255)]) {
      const blocks = blocksNamed(name);
      const feed = new FeedBuffer();
      feed.open(new RamEncoder({ sectionId: SECTION, blocks }), 1);
      for (const page of [3, 4, 0]) feed.add(page, contentPage(page), 0);
      expect(pagesOf(feed.finish(), blocks)).toEqual([
        [1, 3, "3"],
        [1, 4, "4"],
        [1, 0, "0"],
      ]);
    }
  });

  test("are copied from their place in the frame, and shown where they lie now", () => {
    const blocks = blocksNamed("b");
    const feed = new FeedBuffer();
    feed.open(new RamEncoder({ sectionId: SECTION, blocks }), 0);
    const frame = Buffer.concat([Buffer.alloc(77), contentPage(8), contentPage(9)]);
    const slot = feed.add(2 ** 27, frame, 77);
    frame.fill(0);
    expect(slot.equals(contentPage(8))).toBe(true);
    expect(pagesOf(feed.finish(), blocks)).toEqual([[0, 2 ** 27, "8"]]);
  });

  test("fit as many as a frame can bring", () => {
    const blocks = blocksNamed("n".repeat(255));
    const feed = new FeedBuffer();
    feed.open(new RamEncoder({ sectionId: SECTION, blocks }), 0);
    for (let page = 0; page < FRAME_PAGES_MAX; page++) feed.add(page * 3, contentPage(page), 0);
    expect(feed.pages).toBe(FRAME_PAGES_MAX);
    const expected = Array.from({ length: FRAME_PAGES_MAX }, (_, i) => [0, i * 3, `${i}`]);
    expect(pagesOf(feed.finish(), blocks)).toEqual(expected);
  });

  test("leave nothing behind for those that come after them", () => {
    const blocks = blocksNamed("a-longer-name");
    const encoder = new RamEncoder({ sectionId: SECTION, blocks });
    const feed = new FeedBuffer();
    feed.open(encoder, 1);
    for (let page = 0; page < 10; page++) feed.add(page, contentPage(50), 0);
    feed.finish();
    feed.open(encoder, 0);
    expect(feed.pages).toBe(0);
    feed.add(1, contentPage(1), 0);
    expect(pagesOf(feed.finish(), blocks)).toEqual([[0, 1, "1"]]);
  });

  test("name their block in every section, since sections of zero pages come between", () => {
    const blocks = blocksNamed("b");
    const encoder = new RamEncoder({ sectionId: SECTION, blocks });
    const [first, second] = [new FeedBuffer(), new FeedBuffer()];
    first.open(encoder, 0);
    second.open(encoder, 0);
    for (const feed of [first, second]) {
      feed.add(5, contentPage(5), 0);
      // Each is read by a decoder that knows nothing of the one before.
      expect(pagesOf(feed.finish(), blocks)).toEqual([[0, 5, "5"]]);
    }
  });
});

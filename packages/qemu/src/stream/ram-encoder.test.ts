import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { InvariantError } from "@vmferry/core";

import {
  NAIVE_HEADER,
  naiveRamStart,
  naiveSection,
  pageBytes,
  type NaivePage,
} from "./naive-stream.ts";
import { RamEncoder } from "./ram-encoder.ts";
import { recordStream } from "./stream-recorder.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const ID = 0x01020304;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 2 ** 50 },
  { name: "/rom@etc/acpi/tables", lengthBytes: 2 * 4096 },
];

function encode(run: (encoder: RamEncoder, out: Buffer) => number, outBytes = 64): string {
  const out = Buffer.alloc(outBytes, 0xee);
  const end = run(new RamEncoder({ sectionId: ID, blocks: BLOCKS }), out);
  return out.subarray(0, end).toString("hex");
}

describe("the RAM encoder", () => {
  it("writes the head and the end of a part", () => {
    expect(encode((encoder, out) => encoder.beginPart(out, 0))).toBe("0201020304");
    expect(encode((encoder, out) => encoder.beginEnd(out, 0))).toBe("0301020304");
    expect(encode((encoder, out) => encoder.endPart(out, 0))).toBe("00000000000000107e01020304");
    expect(encode((encoder, out) => encoder.emptyEnd(out, 0))).toBe(
      "030102030400000000000000107e01020304",
    );
  });

  it("names a block once, and again when another one came between", () => {
    const bytes = encode((encoder, out) => {
      let at = encoder.zeroPage(out, 0, 0, 0x18ba);
      at = encoder.pageHeader(out, at, 0, 0x18bb);
      at = encoder.zeroPage(out, at, 1, 1);
      return encoder.pageHeader(out, at, 0, 2);
    }, 128);
    expect(bytes).toBe(
      "00000000018ba002" +
        "0670632e72616d" +
        "00" +
        "00000000018bb028" +
        "0000000000001002" +
        "142f726f6d406574632f616370692f7461626c6573" +
        "00" +
        "0000000000002008" +
        "0670632e72616d",
    );
  });

  it("goes on with its block behind a part's end, unless told to forget it", () => {
    const bytes = encode((encoder, out) => {
      let at = encoder.zeroPage(out, 0, 0, 0);
      at = encoder.beginPart(out, encoder.endPart(out, at));
      at = encoder.zeroPage(out, at, 0, 1);
      encoder.forgetBlock();
      return encoder.zeroPage(out, at, 0, 2);
    }, 128);
    expect(bytes.slice((16 + 13 + 5) * 2)).toBe(
      "0000000000001022" + "00" + "0000000000002002" + "0670632e72616d" + "00",
    );
  });

  it.each([2 ** 20 - 1, 2 ** 20, 2 ** 31, 2 ** 38 - 1])("writes page %d exactly", (page) => {
    expect(encode((encoder, out) => encoder.pageHeader(out, 0, 0, page)).slice(0, 16)).toBe(
      (BigInt(page) * 4096n + 8n).toString(16).padStart(16, "0"),
    );
  });

  it("says how much room it needs", () => {
    const encoder = new RamEncoder({ sectionId: ID, blocks: BLOCKS });
    const out = Buffer.alloc(encoder.pageHeaderBytesMax + 1);
    expect(encoder.zeroPage(out, 0, 1, 0)).toBe(out.length);
    expect(encoder.pageHeader(out, 0, 1, 0)).toBe(RamEncoder.continuedPageHeaderBytes);
    expect(encoder.zeroPage(out, 0, 1, 0)).toBe(RamEncoder.continuedZeroPageBytes);
    expect(encoder.beginPart(out, 0)).toBe(RamEncoder.sectionHeaderBytes);
    expect(encoder.endPart(out, 0)).toBe(RamEncoder.partEndBytes);
    expect(encoder.emptyEnd(out, 0)).toBe(RamEncoder.emptyEndBytes);
  });

  it("refuses a page outside its block, and a buffer without room", () => {
    const encoder = new RamEncoder({ sectionId: ID, blocks: BLOCKS });
    const out = Buffer.alloc(100);
    expect(() => encoder.pageHeader(out, 0, 1, 2)).toThrow(InvariantError);
    expect(() => encoder.zeroPage(out, 0, 1, -1)).toThrow(InvariantError);
    expect(() => encoder.zeroPage(out, 0, 2, 0)).toThrow(InvariantError);
    for (let room = 0; room < 8 + 21 + 1; room++) {
      encoder.forgetBlock();
      expect(() => encoder.zeroPage(out, out.length - room, 1, 0)).toThrow(InvariantError);
    }
    encoder.zeroPage(out, 0, 1, 0);
    for (let room = 0; room < 8; room++) {
      expect(() => encoder.pageHeader(out, out.length - room, 1, 0)).toThrow(InvariantError);
    }
    expect(encoder.pageHeader(out, out.length - 8, 1, 0)).toBe(out.length);
  });

  it("refuses a block without a name, or with one of 256 bytes", () => {
    for (const name of ["", "x".repeat(256)]) {
      const blocks = [{ name, lengthBytes: 4096 }];
      expect(() => new RamEncoder({ sectionId: 1, blocks })).toThrow(InvariantError);
    }
  });

  it("writes what its naive twin writes, and the decoder reads it back", () => {
    const anyPage = fc
      .record({ block: fc.nat(1), page: fc.nat(1), seed: fc.option(fc.nat(255)) })
      .map((page) => (page.block === 0 ? { ...page, page: page.page * 0x123456789 } : page));
    fc.assert(
      fc.property(fc.array(anyPage, { maxLength: 8 }), (pages) => {
        const encoder = new RamEncoder({ sectionId: ID, blocks: BLOCKS });
        const out = Buffer.alloc(64 * 1024);
        let at = encoder.beginPart(out, 0);
        const naive: NaivePage[] = [];
        for (const { block, page, seed: pageSeed } of pages) {
          const isSame = naive.length > 0 && pages[naive.length - 1]?.block === block;
          naive.push({ block: isSame ? null : BLOCKS[block]!.name, page, seed: pageSeed });
          if (pageSeed === null) at = encoder.zeroPage(out, at, block, page);
          else {
            at = encoder.pageHeader(out, at, block, page);
            at += pageBytes(pageSeed).copy(out, at);
          }
        }
        const part = out.subarray(0, encoder.endPart(out, at));
        expect(part.equals(naiveSection(2, ID, naive))).toBe(true);
        const { events } = recordStream([
          NAIVE_HEADER,
          naiveRamStart(
            ID,
            BLOCKS.map(({ name }, index) => ({ name, pageCount: index === 0 ? 2 ** 37 : 2 })),
          ),
          part,
          naiveSection(3, ID, []),
          Buffer.of(0),
        ]);
        const read = events.filter(([kind]) => kind === "page" || kind === "zero-page");
        expect(read.map(([, block, page]) => ({ block, page }))).toEqual(
          pages.map(({ block, page }) => ({ block, page })),
        );
      }),
      { seed, numRuns: 200 },
    );
  });
});

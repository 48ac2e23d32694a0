import { describe, expect, it } from "vitest";

import {
  digest,
  NAIVE_EOS,
  NAIVE_HEADER,
  naiveFooter,
  naivePage,
  naiveRamStart,
  naiveSection,
  pageBytes,
  str8,
  u32,
  u64,
} from "./naive-stream.ts";
import { RamRecordDecoder } from "./ram-record-decoder.ts";
import { recordStream, refusalOfStream, StreamRecorder } from "./stream-recorder.ts";

const ID = 7;
const DEVICES = Buffer.from("0400000003056465763000000000", "hex");
const START = naiveRamStart(ID, [
  { name: "pc.ram", pageCount: 64 },
  { name: "pc.rom", pageCount: 2 },
]);

/** A PART whose body is these bytes. */
function partOf(...body: readonly Buffer[]): Buffer {
  return Buffer.concat([
    NAIVE_HEADER,
    START,
    Buffer.of(0x02),
    u32(ID),
    ...body,
    NAIVE_EOS,
    naiveFooter(ID),
  ]);
}

function ramWord(address: number, flags: number): Buffer {
  return u64(BigInt(address) | BigInt(flags));
}

describe("RAM records", () => {
  it.each([
    ["FULL", 0x001],
    ["MEM_SIZE", 0x004],
    ["XBZRLE", 0x040],
    ["HOOK", 0x080],
    ["COMPRESS_PAGE", 0x100],
    ["MULTIFD_FLUSH", 0x200],
    ["0x000", 0x000],
    ["0x00a", 0x00a],
    ["0x800", 0x800],
  ])("of kind %s are refused by name", (flag, flags) => {
    expect(refusalOfStream(partOf(ramWord(0, flags)))).toEqual({
      code: "stream-unsupported-flag",
      flag,
    });
    expect(refusalOfStream(partOf(ramWord(0, flags | 0x20)))).toEqual({
      code: "stream-unsupported-flag",
      flag,
    });
  });

  it("refuse an end that carries an address or continues a block", () => {
    expect(refusalOfStream(partOf(ramWord(4096, 0x10)))).toMatchObject({
      code: "stream-unsupported-flag",
    });
    expect(refusalOfStream(partOf(ramWord(0, 0x30)))).toMatchObject({ flag: "EOS" });
  });

  it("refuse a zero page with another fill, named or continued", () => {
    const named = Buffer.concat([ramWord(0, 0x02), str8("pc.ram"), Buffer.of(255)]);
    expect(refusalOfStream(partOf(named))).toEqual({ code: "stream-zero-fill", fill: 255 });
    const zero = naivePage({ block: "pc.ram", page: 0, seed: null });
    const continued = Buffer.concat([ramWord(4096, 0x22), Buffer.of(1)]);
    expect(refusalOfStream(partOf(zero, continued))).toEqual({ code: "stream-zero-fill", fill: 1 });
  });

  it("refuse a page of a block that was not announced", () => {
    expect(refusalOfStream(partOf(naivePage({ block: "vga.vram", page: 0, seed: null })))).toEqual({
      code: "stream-unknown-block",
      name: "vga.vram",
    });
  });

  it("refuse to continue a block before one was named", () => {
    expect(refusalOfStream(partOf(naivePage({ block: null, page: 5, seed: 1 })))).toEqual({
      code: "stream-no-block",
      page: 5,
    });
  });

  it.each([64, 2 ** 20, 2 ** 40, 2 ** 52 - 1])("refuse page %d of a block of 64", (page) => {
    const expected = { code: "stream-page-out-of-range", block: "pc.ram", page, pageCount: 64 };
    const first = naivePage({ block: "pc.ram", page: 63, seed: null });
    expect(refusalOfStream(partOf(naivePage({ block: "pc.ram", page, seed: 1 })))).toEqual(
      expected,
    );
    expect(refusalOfStream(partOf(first, naivePage({ block: null, page, seed: null })))).toEqual(
      expected,
    );
    expect(refusalOfStream(partOf(first, naivePage({ block: null, page, seed: 1 })))).toEqual(
      expected,
    );
  });

  it("know pages far beyond 4 GiB", () => {
    const block = { name: "big", pageCount: 2 ** 38 };
    const pages = [2 ** 20, 2 ** 31 + 5, 2 ** 38 - 1];
    const stream = Buffer.concat([
      NAIVE_HEADER,
      naiveRamStart(ID, [block]),
      naiveSection(0x02, ID, [{ block: "big", page: 0, seed: null }]),
      naiveSection(
        0x03,
        ID,
        pages.map((page) => ({ block: null, page, seed: null })),
      ),
      DEVICES,
    ]);
    const { events } = recordStream([stream]);
    const found = events.filter(([kind]) => kind === "zero-page").map((event) => event[2]);
    expect(found).toEqual([0, ...pages]);
  });

  it("of a bare channel are decoded without header and sections, across any chunks", () => {
    const recorder = new StreamRecorder();
    const blocks = [{ name: "pc.ram", lengthBytes: 8 * 4096 }];
    const decoder = new RamRecordDecoder(blocks, recorder);
    const bytes = Buffer.concat([
      naivePage({ block: "pc.ram", page: 3, seed: 3 }),
      naivePage({ block: null, page: 4, seed: null }),
      NAIVE_EOS,
      Buffer.of(0xff),
    ]);
    const eosEnd = bytes.length - 1;
    for (let at = 0; at < bytes.length;) {
      expect(decoder.ended).toBe(at === eosEnd);
      if (decoder.ended) break;
      at += decoder.decode(bytes.subarray(at, at + 1000), 0);
    }
    expect(decoder.ended).toBe(true);
    expect(decoder.atBoundary).toBe(true);
    expect(recorder.events).toEqual([
      ["page", 0, 3, digest(pageBytes(3))],
      ["zero-page", 0, 4],
    ]);
  });
});

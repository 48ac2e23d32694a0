import { InvariantError } from "@vmferry/core";
import { describe, expect, test } from "vitest";
import { ruleOf } from "./broken-rule.ts";
import { FrameKind, openFrame, RunTable, sealFrame, type FrameHeader } from "./bulk-frame.ts";
import {
  naiveCrc32c,
  naiveDisk,
  naiveExtent,
  naiveFrame,
  naivePages,
  naiveRun,
  type NaiveExtent,
  type NaiveRun,
} from "./naive-frame.ts";

const PLAIN: FrameHeader = { kind: 1, encoding: 1, pass: 0, sequence: 0, block: 0, runs: 0 };

function refusal(frame: Buffer): string {
  return ruleOf(() => openFrame(frame));
}

function runsRefusal(frame: Buffer, blockPages: number): string {
  return ruleOf(() => {
    new RunTable().open(frame, openFrame(frame), blockPages);
  });
}

function sealed(header: Partial<FrameHeader>, payload: Buffer = Buffer.alloc(0)): Buffer {
  const frame = Buffer.concat([Buffer.alloc(32, 0xee), payload]);
  sealFrame(frame, { ...PLAIN, ...header });
  return frame;
}

function run(first: number, pages: number): NaiveRun {
  return { first, pages, zero: false };
}

function zeroRun(first: number, pages: number): NaiveRun {
  return { first, pages, zero: true };
}

const PAGE = Buffer.alloc(4096, 0xa5);

describe("golden frames, both ways", () => {
  const golden: readonly (readonly [string, string, FrameHeader, Buffer])[] = [
    [
      "STREAM",
      "489a8835020101000000000000000008000000000000000000000000000000005145564d00000003",
      { ...PLAIN, kind: FrameKind.STREAM },
      Buffer.from("QEVM\0\0\0\x03"),
    ],
    [
      "PAGES without data",
      "41632ec1020201000000000300000010000000010000000500010002000000000000000780000003ffff000080000001",
      { kind: FrameKind.PAGES, encoding: 1, pass: 3, sequence: 2 ** 32 + 5, block: 1, runs: 2 },
      Buffer.concat([naiveRun(zeroRun(7, 3)), naiveRun(zeroRun(0xffff_0000, 1))]),
    ],
    [
      "PAGES with data",
      "f6c88d610202010000000001000010100000000000000009000000020000000000000005000000010000000080000002" +
        "a5".repeat(4096),
      { kind: FrameKind.PAGES, encoding: 1, pass: 1, sequence: 9, block: 0, runs: 2 },
      Buffer.concat([naiveRun(run(5, 1)), naiveRun(zeroRun(0, 2)), PAGE]),
    ],
    [
      "PAGES with compressed data",
      "2252105d020202000000000100000012000000000000000a00ff0001000000000000000500000001636f6d70726573736564",
      { kind: FrameKind.PAGES, encoding: 2, pass: 1, sequence: 10, block: 255, runs: 1 },
      Buffer.concat([naiveRun(run(5, 1)), Buffer.from("compressed")]),
    ],
    [
      "BARRIER",
      "90d45da502030100ffffffff00000000001fffffffffffff0000000000000000",
      { ...PLAIN, kind: FrameKind.BARRIER, pass: 2 ** 32 - 1, sequence: Number.MAX_SAFE_INTEGER },
      Buffer.alloc(0),
    ],
    [
      "RAM_END",
      "089c321c02040100000000020000000000000000000000010000000000000000",
      { ...PLAIN, kind: FrameKind.RAM_END, pass: 2, sequence: 1 },
      Buffer.alloc(0),
    ],
    [
      "DISK without data",
      "e1c0fe0202050100000000000000002000000000000000050017000200000000000000000000000040000000020000000003fffffffffe000000020003000000",
      { kind: FrameKind.DISK, encoding: 1, pass: 0, sequence: 5, block: 23, runs: 2 },
      Buffer.concat([
        naiveExtent({ offset: 0n, length: 2 ** 30, operation: 2 }),
        naiveExtent({ offset: 2n ** 50n - 512n, length: 512, operation: 3 }),
      ]),
    ],
    [
      "DISK with data",
      "575cce57020501000000000000001020000000000000000600000002000000000000000100000200000010000100000000000000000000070000000103000000" +
        "a5".repeat(4096),
      { kind: FrameKind.DISK, encoding: 1, pass: 0, sequence: 6, block: 0, runs: 2 },
      Buffer.concat([
        naiveExtent({ offset: 0x1_0000_0200n, length: 4096, operation: 1 }),
        naiveExtent({ offset: 7n, length: 1, operation: 3 }),
        PAGE,
      ]),
    ],
    [
      "DISK with compressed data",
      "fa95366302050200000000000000001a0000000000000007000100010000000000000000000100000001000001000000636f6d70726573736564",
      { kind: FrameKind.DISK, encoding: 2, pass: 0, sequence: 7, block: 1, runs: 1 },
      Buffer.concat([
        naiveExtent({ offset: 65_536n, length: 65_536, operation: 1 }),
        Buffer.from("compressed"),
      ]),
    ],
    [
      "DISK_END",
      "e2b8c85902060100000000000000000000000000000000080000000000000000",
      { ...PLAIN, kind: FrameKind.DISK_END, sequence: 8 },
      Buffer.alloc(0),
    ],
    [
      "MISSING",
      "27bbf7b2020701000000000400000010000000000000000c00020002000000000000123400007fff0000000100000001",
      { kind: FrameKind.MISSING, encoding: 1, pass: 4, sequence: 12, block: 2, runs: 2 },
      Buffer.concat([naiveRun(run(0x1234, 0x7fff)), naiveRun(run(1, 1))]),
    ],
    [
      "POSTCOPY",
      "6b559c75020801000000000400000004000000000000000d00000000000000000001e240",
      { ...PLAIN, kind: FrameKind.POSTCOPY, pass: 4, sequence: 13 },
      Buffer.from("0001e240", "hex"),
    ],
  ];

  test.each(golden)("%s", (_, hex, header, payload) => {
    expect(sealed(header, payload).toString("hex")).toBe(hex);
    const frame = Buffer.from(hex, "hex");
    expect(openFrame(frame)).toEqual(header);
    expect(frame.subarray(32)).toEqual(payload);
  });

  test.each(golden)("%s is refused when it is cut at any byte", (_, hex) => {
    const frame = Buffer.from(hex, "hex");
    for (let bytes = 0; bytes < frame.length; bytes++) {
      const cut = Buffer.from(frame.subarray(0, bytes));
      const code = bytes < 32 ? "frame shorter than its header" : "frame-corrupt";
      expect(refusal(cut), `${bytes} bytes`).toBe(code);
      if (bytes < 32) continue;
      // And once more with a checksum that is right for what is left.
      cut.writeUInt32BE(naiveCrc32c(cut.subarray(4)), 0);
      expect(refusal(cut), `${bytes} bytes`).toBe("frame payload length");
    }
  });

  test.each(golden)("%s is refused with a byte behind it", (_, hex) => {
    const longer = Buffer.from(`${hex}00`, "hex");
    expect(refusal(longer)).toBe("frame-corrupt");
    longer.writeUInt32BE(naiveCrc32c(longer.subarray(4)), 0);
    expect(refusal(longer)).toBe("frame payload length");
  });

  test.each(golden)("%s is corrupt when any one of its bits is flipped", (_, hex) => {
    const frame = Buffer.from(hex, "hex");
    for (let bit = 0; bit < frame.length * 8; bit++) {
      frame[bit >>> 3]! ^= 1 << (bit & 7);
      if (refusal(frame) !== "frame-corrupt") throw new Error(`bit ${bit}: ${refusal(frame)}`);
      frame[bit >>> 3]! ^= 1 << (bit & 7);
    }
    expect(refusal(frame)).toBe("accepted");
  });
});

describe("a corrupt frame", () => {
  test("names its sequence number, as far as that can be believed, in hex", () => {
    const frame = sealed({ sequence: 0xabc });
    frame[0]! ^= 1;
    expect(() => openFrame(frame)).toThrow(
      expect.objectContaining({ detail: { code: "frame-corrupt", sequence: "abc" } }),
    );
  });
});

describe("a frame with a right checksum", () => {
  const others = (...known: readonly number[]): number[] =>
    Array.from({ length: 256 }, (_, value) => value).filter((value) => !known.includes(value));

  test("is refused for every version, kind and encoding that there is not", () => {
    for (const version of others(2)) {
      expect(refusal(naiveFrame({ version })), `${version}`).toBe("frame version");
    }
    for (const kind of others(1, 2, 3, 4, 5, 6, 7, 8)) {
      expect(refusal(naiveFrame({ kind })), `${kind}`).toBe("frame kind");
    }
    for (const encoding of others(1, 2)) {
      expect(refusal(naiveFrame({ encoding })), `${encoding}`).toBe("frame encoding");
    }
    for (const kind of [1, 3, 4, 6, 7, 8]) {
      const compressed = naiveFrame({ kind, encoding: 2 });
      expect(refusal(compressed), `${kind}`).toBe("frame encoding of its kind");
    }
  });

  test("is refused for every bit of its reserved fields", () => {
    for (let bit = 0; bit < 8; bit++) {
      expect(refusal(naiveFrame({ reserved7: 1 << bit }))).toBe("frame reserved field");
    }
    for (let bit = 0; bit < 32; bit++) {
      expect(refusal(naiveFrame({ reserved28: 2 ** bit }))).toBe("frame reserved field");
    }
  });

  test.each([0, 1, 2 ** 31, 2 ** 32 - 1])(
    "is refused when it declares %i bytes of payload and has 8",
    (payloadBytes) => {
      const frame = naiveFrame({ payloadBytes, payload: Buffer.alloc(8) });
      expect(refusal(frame)).toBe("frame payload length");
    },
  );

  test("counts up to 2^53 - 1 and no further", () => {
    const sequence = 2n ** 53n;
    expect(openFrame(naiveFrame({ sequence: sequence - 1n })).sequence).toBe(2 ** 53 - 1);
    for (const beyond of [sequence, sequence + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      expect(refusal(naiveFrame({ sequence: beyond }))).toBe("frame sequence");
    }
  });

  test.each([
    ["STREAM", 1],
    ["BARRIER", 3],
    ["RAM_END", 4],
    ["DISK_END", 6],
    ["POSTCOPY", 8],
  ])("of %s has neither a block nor runs", (_, kind) => {
    expect(refusal(naiveFrame({ kind, block: 1 }))).toBe("frame field without a meaning");
    expect(refusal(naiveFrame({ kind, runs: 1 }))).toBe("frame field without a meaning");
  });

  test.each([
    ["BARRIER", 3],
    ["RAM_END", 4],
    ["DISK_END", 6],
  ])("of %s has no payload", (_, kind) => {
    const rule = "frame payload too large for its kind";
    expect(refusal(naiveFrame({ kind, payload: Buffer.alloc(1) }))).toBe(rule);
    expect(refusal(naiveFrame({ kind, payload: Buffer.alloc(262_144) }))).toBe(rule);
  });
});

describe("a frame of disks", () => {
  const extent = (offset: number): NaiveExtent => ({
    offset: BigInt(offset),
    length: 512,
    operation: 3,
  });

  test("belongs to no pass", () => {
    for (const pass of [1, 2, 2 ** 31, 2 ** 32 - 1]) {
      expect(refusal(naiveDisk([extent(0)], { pass }))).toBe("frame field without a meaning");
      expect(refusal(naiveFrame({ kind: 6, pass }))).toBe("frame field without a meaning");
    }
  });

  test("names disk 23 at most", () => {
    expect(refusal(naiveDisk([extent(0)], { block: 23 }))).toBe("accepted");
    for (const block of [24, 255, 65_535]) {
      expect(refusal(naiveDisk([extent(0)], { block }))).toBe("frame disk index");
    }
  });

  test("has 1 to 128 extents", () => {
    const extents = Array.from({ length: 129 }, (_, index) => extent(512 * index));
    expect(refusal(naiveDisk(extents.slice(1)))).toBe("accepted");
    expect(refusal(naiveDisk(extents))).toBe("frame extent count");
    expect(refusal(naiveDisk([]))).toBe("frame extent count");
    expect(refusal(naiveDisk(extents.slice(1), { runs: 65_535 }))).toBe("frame extent count");
  });

  test("has room for its extent table, and 256 KiB of data at most behind it", () => {
    const frame = (runs: number, payloadBytes: number): Buffer =>
      naiveFrame({ kind: 5, encoding: 2, runs, payload: Buffer.alloc(payloadBytes) });
    for (const runs of [1, 2, 128]) {
      const tableBytes = runs * 16;
      expect(refusal(frame(runs, tableBytes - 1))).toBe("frame extent data length");
      expect(refusal(frame(runs, tableBytes))).toBe("accepted");
      expect(refusal(frame(runs, tableBytes + 262_144))).toBe("accepted");
    }
    for (const runs of [1, 2, 127]) {
      expect(refusal(frame(runs, runs * 16 + 262_145))).toBe("frame extent data length");
    }
    expect(frame(128, 128 * 16 + 262_144)).toHaveLength(264_224);
    expect(refusal(frame(128, 128 * 16 + 262_145))).toBe("frame too large");
  });
});

describe("limits", () => {
  test("STREAM carries 256 KiB at most", () => {
    expect(refusal(naiveFrame({ payload: Buffer.alloc(262_144) }))).toBe("accepted");
    expect(refusal(naiveFrame({ payload: Buffer.alloc(262_145) }))).toBe(
      "frame payload too large for its kind",
    );
  });

  test("PAGES names block 255 at most", () => {
    expect(refusal(naivePages([zeroRun(0, 1)], { block: 255 }))).toBe("accepted");
    for (const block of [256, 65_535]) {
      expect(refusal(naivePages([zeroRun(0, 1)], { block }))).toBe("frame block index");
    }
  });

  test("PAGES has 1 to 256 runs", () => {
    const runs = Array.from({ length: 257 }, (_, index) => zeroRun(2 * index, 1));
    expect(refusal(naivePages(runs.slice(1)))).toBe("accepted");
    expect(refusal(naivePages(runs))).toBe("frame run count");
    expect(refusal(naivePages([]))).toBe("frame run count");
    expect(refusal(naivePages(runs.slice(1), { runs: 65_535 }))).toBe("frame run count");
  });

  test("PAGES has 64 data pages at most, also where 256 runs make it the longest frame", () => {
    const longest = [run(0, 64), ...Array.from({ length: 255 }, (_, i) => zeroRun(100 + 2 * i, 1))];
    const frame = naivePages(longest);
    expect(frame).toHaveLength(264_224);
    expect(runsRefusal(frame, 2 ** 20)).toBe("accepted");
    expect(refusal(naivePages([run(0, 65)]))).toBe("frame too large");
    expect(refusal(Buffer.alloc(264_225))).toBe("frame too large");
  });

  test("PAGES has room for its run table, and raw data in whole pages behind it", () => {
    const short = naiveFrame({ kind: 2, runs: 2, payload: Buffer.alloc(8) });
    expect(refusal(short)).toBe("frame page data length");
    for (const bytes of [1, 4095, 4097]) {
      const payload = Buffer.concat([naiveRun(run(0, 1)), Buffer.alloc(bytes)]);
      expect(runsRefusal(naiveFrame({ kind: 2, runs: 1, payload }), 9)).not.toBe("accepted");
    }
  });

  test("compressed PAGES has data of any length up to that of 64 pages, for 64 pages at most", () => {
    const compressed = (pages: number, bytes: number): Buffer => {
      const payload = Buffer.concat([naiveRun(run(0, pages)), Buffer.alloc(bytes)]);
      return naiveFrame({ kind: 2, encoding: 2, runs: 1, payload });
    };
    for (const bytes of [0, 1, 100, 4096, 262_144]) {
      expect(runsRefusal(compressed(64, bytes), 100)).toBe("accepted");
    }
    expect(refusal(compressed(64, 262_145))).toBe("frame page data length");
    for (const pages of [65, 100]) {
      expect(runsRefusal(compressed(pages, 100), 100)).toBe("frame page data length");
    }
    expect(runsRefusal(compressed(2 ** 31 - 1, 100), 2 ** 32)).toBe("frame page data length");
  });
});

describe("sealing", () => {
  test.each<[string, Partial<FrameHeader>, number]>([
    ["longer than a frame may be", {}, 264_225],
    ["STREAM with too much", {}, 262_145],
    ["STREAM with a block", { block: 1 }, 0],
    ["BARRIER with a payload", { kind: FrameKind.BARRIER }, 1],
    ["PAGES without runs", { kind: FrameKind.PAGES }, 0],
    ["PAGES with 257 runs", { kind: FrameKind.PAGES, runs: 257 }, 257 * 8],
    ["PAGES without its run table", { kind: FrameKind.PAGES, runs: 2 }, 8],
    ["STREAM that is compressed", { encoding: 2 }, 8],
    ["PAGES of block 256", { kind: FrameKind.PAGES, runs: 1, block: 256 }, 8],
    ["DISK without extents", { kind: FrameKind.DISK }, 0],
    ["DISK with 129 extents", { kind: FrameKind.DISK, runs: 129 }, 129 * 16],
    ["DISK without its extent table", { kind: FrameKind.DISK, runs: 2 }, 31],
    ["DISK with too much", { kind: FrameKind.DISK, runs: 1 }, 16 + 262_145],
    ["DISK of disk 24", { kind: FrameKind.DISK, runs: 1, block: 24 }, 16],
    ["DISK in a pass", { kind: FrameKind.DISK, runs: 1, pass: 1 }, 16],
    ["DISK_END in a pass", { kind: FrameKind.DISK_END, pass: 1 }, 0],
    ["DISK_END of a disk", { kind: FrameKind.DISK_END, block: 1 }, 0],
    ["DISK_END with a payload", { kind: FrameKind.DISK_END }, 1],
    ["MISSING without runs", { kind: FrameKind.MISSING }, 0],
    ["MISSING with data", { kind: FrameKind.MISSING, runs: 1 }, 9],
    ["MISSING of block 256", { kind: FrameKind.MISSING, runs: 1, block: 256 }, 8],
    ["POSTCOPY without a number", { kind: FrameKind.POSTCOPY }, 0],
    ["DISK_END that is compressed", { kind: FrameKind.DISK_END, encoding: 2 }, 0],
  ])("refuses a frame that the receiver would refuse: %s", (_, header, payloadBytes) => {
    expect(() => sealed(header, Buffer.alloc(payloadBytes))).toThrow(InvariantError);
  });

  test("refuses a buffer that has no room for the header", () => {
    expect(() => {
      sealFrame(Buffer.alloc(31), PLAIN);
    }).toThrow(InvariantError);
  });
});

import { InvariantError } from "@vmferry/core";
import { describe, expect, test } from "vitest";
import { ruleOf } from "./broken-rule.ts";
import { FrameKind, openFrame, sealFrame, type FrameHeader } from "./bulk-frame.ts";
import { DiskOperation, ExtentTable, putExtent, type DiskExtent } from "./disk-frame.ts";
import { naiveDisk, naiveExtent, naiveFrame, type NaiveExtent } from "./naive-frame.ts";

const { DATA, ZERO, TRIM } = DiskOperation;
const DISK_BYTES = 100_000;
const DISK: FrameHeader = {
  kind: FrameKind.DISK,
  encoding: 1,
  pass: 0,
  sequence: 0,
  block: 0,
  runs: 0,
};

function extent(operation: number, offset: number, length: number): NaiveExtent {
  return { operation, offset: BigInt(offset), length };
}

function opened(frame: Buffer, diskBytes = DISK_BYTES): ExtentTable {
  const table = new ExtentTable();
  table.open(frame, openFrame(frame), diskBytes);
  return table;
}

function refusal(frame: Buffer, diskBytes = DISK_BYTES): string {
  return ruleOf(() => opened(frame, diskBytes));
}

function refusalOf(...extents: readonly NaiveExtent[]): string {
  return refusal(naiveDisk(extents));
}

function extentsOf(table: ExtentTable): DiskExtent[] {
  return Array.from({ length: table.count }, (_, index) => table.extent(index));
}

/** A frame as a source makes it: the data is in place, then the table, then the header. */
function sealed(
  header: Partial<FrameHeader>,
  extents: readonly DiskExtent[],
  data: Buffer,
): Buffer {
  const spare = 7;
  const frameBytes = 32 + extents.length * 16 + data.length;
  const buffer = Buffer.concat([Buffer.alloc(spare + frameBytes - data.length, 0xee), data]);
  for (const [index, each] of extents.entries()) {
    putExtent(buffer, { frameStart: spare, index }, each);
  }
  const frame = buffer.subarray(spare);
  sealFrame(frame, { ...DISK, runs: extents.length, ...header });
  expect(buffer.subarray(0, spare)).toEqual(Buffer.alloc(spare, 0xee));
  return frame;
}

describe("golden frames, both ways", () => {
  interface Golden {
    readonly hex: string;
    readonly header: Partial<FrameHeader>;
    readonly extents: readonly DiskExtent[];
    readonly data: Buffer;
  }

  const golden: readonly (readonly [string, Golden])[] = [
    [
      "all operations",
      {
        hex: "b47d9fb90205010000000000000000480000000100000001000300040000000000000000000010000000000501000000000000000000000040000000020000000003ffffffffffff00000001030000000000000100000002000000030100000066697273746c7374",
        header: { block: 3, sequence: 2 ** 32 + 1 },
        extents: [
          { operation: DATA, offset: 4096, length: 5 },
          { operation: ZERO, offset: 0, length: 2 ** 30 },
          { operation: TRIM, offset: 2 ** 50 - 1, length: 1 },
          { operation: DATA, offset: 2 ** 32 + 2, length: 3 },
        ],
        data: Buffer.from("firstlst"),
      },
    ],
    [
      "compressed data",
      {
        hex: "1b6b971d02050200000000000000002a000000000000000000000002000000000000000000000200000002000300000000000000000100000004000001000000636f6d70726573736564",
        header: { encoding: 2 },
        extents: [
          { operation: TRIM, offset: 512, length: 512 },
          { operation: DATA, offset: 65_536, length: 262_144 },
        ],
        data: Buffer.from("compressed"),
      },
    ],
    [
      "no data",
      {
        hex: "d35e3fa00205010000000000000000100000000000000000001700010000000000020000000000010001000002000000",
        header: { block: 23 },
        extents: [{ operation: ZERO, offset: 2 ** 49 + 1, length: 65_536 }],
        data: Buffer.alloc(0),
      },
    ],
  ];

  test.each(golden)("%s", (_, { hex, header, extents, data }) => {
    expect(sealed(header, extents, data).toString("hex")).toBe(hex);
    const frame = Buffer.from(hex, "hex");
    expect(openFrame(frame)).toEqual({ ...DISK, runs: extents.length, ...header });
    const table = opened(frame, 2 ** 50);
    expect(extentsOf(table)).toEqual(extents);
    expect(table.dataOffset).toBe(32 + extents.length * 16);
    expect(frame.subarray(table.dataOffset)).toEqual(data);
    const dataBytes = extents.map(({ operation, length }) => (operation === DATA ? length : 0));
    expect(table.dataBytes).toBe(dataBytes.reduce((sum, bytes) => sum + bytes, 0));
  });

  test.each(golden)("%s is refused when it is cut at any byte", (_, { hex, header }) => {
    const whole = Buffer.from(hex, "hex");
    const { runs } = openFrame(whole);
    const fields = {
      kind: 5,
      runs,
      block: header.block ?? 0,
      encoding: header.encoding ?? 1,
      payload: whole.subarray(32),
    };
    for (let bytes = 0; bytes < whole.length; bytes++) {
      expect(refusal(whole.subarray(0, bytes), 2 ** 50), `${bytes} bytes`).toBe(
        bytes < 32 ? "frame shorter than its header" : "frame-corrupt",
      );
    }
    // And with a header that says so: what is lacking is seen, down to the last byte.
    for (let bytes = 0; bytes < fields.payload.length; bytes++) {
      const cut = naiveFrame({ ...fields, payload: fields.payload.subarray(0, bytes) });
      const inTable = bytes < runs * 16;
      // How long compressed data has to be is its decoder's to say.
      if (!inTable && fields.encoding === 2) continue;
      expect(refusal(cut, 2 ** 50), `${bytes} bytes of payload`).toBe(
        inTable ? "frame extent data length" : "extents and data disagree",
      );
    }
  });

  test("a byte behind the data is refused", () => {
    const payload = Buffer.concat([naiveExtent(extent(DATA, 0, 4)), Buffer.alloc(5)]);
    expect(refusal(naiveFrame({ kind: 5, runs: 1, payload }))).toBe("extents and data disagree");
    const none = Buffer.concat([naiveExtent(extent(ZERO, 0, 4)), Buffer.alloc(1)]);
    expect(refusal(naiveFrame({ kind: 5, runs: 1, payload: none }))).toBe(
      "extents and data disagree",
    );
  });
});

describe("an extent", () => {
  test.each([DATA, ZERO, TRIM])("of operation %i has a length", (operation) => {
    expect(refusalOf(extent(operation, 0, 1))).toBe("accepted");
    expect(refusalOf(extent(operation, 0, 0))).toBe("extent length");
    expect(refusalOf(extent(ZERO, 9, 9), extent(operation, 0, 0))).toBe("extent length");
  });

  test("is 1 GiB long at most", () => {
    const zeros = (operation: number, length: number): Buffer =>
      naiveDisk([extent(operation, 0, length)]);
    for (const operation of [ZERO, TRIM]) {
      expect(refusal(zeros(operation, 2 ** 30), 2 ** 50)).toBe("accepted");
      for (const length of [2 ** 30 + 1, 2 ** 31, 2 ** 32 - 1]) {
        expect(refusal(zeros(operation, length), 2 ** 50)).toBe("extent length");
      }
    }
  });

  test.each([DATA, ZERO, TRIM])("of operation %i stays inside its disk", (operation) => {
    expect(refusalOf(extent(operation, DISK_BYTES - 1, 1))).toBe("accepted");
    expect(refusalOf(extent(operation, 0, DISK_BYTES))).toBe("accepted");
    const outside: readonly (readonly [number, number])[] = [
      [DISK_BYTES, 1],
      [DISK_BYTES - 1, 2],
      [0, DISK_BYTES + 1],
      [2 ** 32, 1],
      [2 ** 53 - 1, 1],
    ];
    for (const [offset, length] of outside) {
      expect(refusalOf(extent(operation, offset, length))).toBe("extent outside its disk");
    }
  });

  test.each([2n ** 53n, 2n ** 63n, 2n ** 64n - 1n])("does not wrap around at %i", (offset) => {
    for (const length of [1, 2, 4096]) {
      const frame = naiveDisk([{ operation: TRIM, offset, length }]);
      expect(refusal(frame, 2 ** 50)).toBe("extent outside its disk");
    }
  });

  test("has one of three operations", () => {
    for (let operation = 0; operation < 256; operation++) {
      const known = operation === DATA || operation === ZERO || operation === TRIM;
      expect(refusalOf(extent(operation, 0, 1)), `${operation}`).toBe(
        known ? "accepted" : "extent operation",
      );
    }
  });

  test("has 3 zero bytes at its end", () => {
    for (const operation of [DATA, ZERO, TRIM]) {
      for (let bit = 0; bit < 24; bit++) {
        const broken = { ...extent(operation, 0, 1), reserved: 2 ** bit };
        expect(refusalOf(broken), `bit ${bit}`).toBe("extent operation");
      }
    }
  });
});

describe("the data of a frame", () => {
  const data = (...lengths: readonly number[]): NaiveExtent[] =>
    lengths.map((length) => extent(DATA, 0, length));
  const compressed = (extents: readonly NaiveExtent[], bytes = 9): Buffer =>
    naiveFrame({
      kind: 5,
      encoding: 2,
      runs: extents.length,
      payload: Buffer.concat([...extents.map(naiveExtent), Buffer.alloc(bytes)]),
    });

  test("is 256 KiB at most, all extents together, compressed or not", () => {
    for (const lengths of [[262_144], [262_143, 1], [131_072, 131_072]]) {
      expect(refusal(naiveDisk(data(...lengths)), 2 ** 30)).toBe("accepted");
      expect(refusal(compressed(data(...lengths)), 2 ** 30)).toBe("accepted");
    }
    for (const lengths of [[262_145], [262_144, 1], [2 ** 30], Array(128).fill(2 ** 30)]) {
      expect(refusal(compressed(data(...(lengths as number[]))), 2 ** 30)).toBe(
        "frame extent data length",
      );
    }
    expect(refusal(naiveDisk(data(262_145)), 2 ** 30)).toBe("frame extent data length");
  });

  test("fills the frame with 128 extents up to its limit", () => {
    const frame = naiveDisk(data(...Array.from({ length: 128 }, () => 2048)));
    expect(frame).toHaveLength(264_224);
    expect(refusal(frame)).toBe("accepted");
  });

  test.each([0, 1, 3, 5, 262_144])("of 4 bytes is not %i bytes when it is raw", (bytes) => {
    const payload = Buffer.concat([naiveExtent(extent(DATA, 0, 4)), Buffer.alloc(bytes)]);
    const frame = naiveFrame({ kind: 5, runs: 1, payload });
    expect(refusal(frame)).toBe("extents and data disagree");
  });

  test("is there when it is compressed", () => {
    const none = [extent(ZERO, 0, 9), extent(TRIM, 9, 9)];
    expect(refusal(compressed(none))).toBe("compressed frame without data");
    expect(refusal(compressed(none, 0))).toBe("compressed frame without data");
    expect(refusal(compressed([...none, extent(DATA, 0, 1)]))).toBe("accepted");
  });
});

describe("a table", () => {
  /** Extents as "offset+length". */
  const disjoint = (extents: string): boolean => {
    const numbers = extents.split(" ").map((each) => each.split("+").map(Number));
    return opened(naiveDisk(numbers.map(([offset, length]) => extent(TRIM, offset!, length!))))
      .disjoint;
  };

  test.each([
    ["one extent", "0+100000", true],
    ["extents that touch", "0+10 10+10 20+1", true],
    ["extents apart", "5+10 50+10", true],
    ["extents apart in another order", "50+10 5+10 900+1 20+30", true],
    ["extents that touch in another order", "20+1 10+10 0+10", true],
    ["offsets of different numbers of digits", "9+1 10000+5 800+5", true],
    ["a byte in two", "0+11 10+10", false],
    ["a byte in two of another order", "10+10 0+11", false],
    ["the same extent twice", "7+3 7+3", false],
    ["the same offset, the shorter one first", "7+1 7+3", false],
    ["the same offset, the longer one first", "7+3 7+1", false],
    ["the same offset far apart in the table", "7+3 50+1 90+1 7+3", false],
    ["one inside another", "0+100000 7+1", false],
    ["one around others that are apart", "40+1 60+1 10+90", false],
    ["one that reaches over its neighbour", "0+50 10+5 40+5", false],
  ])("of %s (%s) says whether they are disjoint", (_, extents, expected) => {
    expect(disjoint(extents)).toBe(expected);
  });

  test("does not care which operations overlap", () => {
    for (const one of [DATA, ZERO, TRIM]) {
      for (const other of [DATA, ZERO, TRIM]) {
        const frame = naiveDisk([extent(one, 0, 10), extent(other, 9, 10)]);
        expect(opened(frame).disjoint).toBe(false);
        expect(opened(naiveDisk([extent(one, 0, 9), extent(other, 9, 10)])).disjoint).toBe(true);
      }
    }
  });

  test("can be opened again for the next frame", () => {
    const table = new ExtentTable();
    const frames = [
      [extent(DATA, 0, 10), extent(TRIM, 5, 1), extent(DATA, 90, 2)],
      [extent(ZERO, 8, 8)],
      [extent(DATA, 1, 3), extent(ZERO, 4, 1)],
    ];
    const seen = frames.map((extents) => {
      const frame = naiveDisk(extents);
      table.open(frame, openFrame(frame), DISK_BYTES);
      return [table.count, table.dataBytes, table.disjoint];
    });
    expect(seen).toEqual([
      [3, 12, false],
      [1, 0, true],
      [2, 3, true],
    ]);
  });
});

describe("putting an extent", () => {
  test.each<[string, number, Partial<DiskExtent>]>([
    ["no length", 0, { length: 0 }],
    ["more than 1 GiB", 0, { length: 2 ** 30 + 1 }],
    ["an index behind the table", 128, {}],
  ])("refuses what the receiver would refuse: %s", (_, index, broken) => {
    const whole: DiskExtent = { operation: TRIM, offset: 0, length: 1 };
    expect(() => {
      putExtent(Buffer.alloc(8192), { frameStart: 0, index }, { ...whole, ...broken });
    }).toThrow(InvariantError);
  });
});

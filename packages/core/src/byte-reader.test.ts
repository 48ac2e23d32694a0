import { describe, expect, test } from "vitest";
import { InvariantError } from "./assert.ts";
import { ByteError, ByteReader } from "./byte-reader.ts";

const BYTES = Uint8Array.from({ length: 26 }, (_, index) => 0xf0 + index);

interface Field {
  readonly name: string;
  readonly bytes: number;
  readonly read: (reader: ByteReader) => unknown;
  readonly value: unknown;
}

/** All readings one after the other, and what they give over BYTES. */
const fields: readonly Field[] = [
  { name: "version", bytes: 1, read: (reader) => reader.u8("version"), value: 0xf0 },
  { name: "port", bytes: 2, read: (reader) => reader.u16("port"), value: 0xf1f2 },
  { name: "length", bytes: 4, read: (reader) => reader.u32("length"), value: 0xf3f4f5f6 },
  { name: "offset", bytes: 8, read: (reader) => reader.u64("offset"), value: 0xf7f8f9fafbfcfdfen },
  {
    name: "name",
    bytes: 3,
    read: (reader) => [...reader.bytes("name", 3)],
    value: [0xff, 0x00, 0x01],
  },
  {
    name: "size",
    bytes: 8,
    read: (reader) => reader.u64AsNumber("size"),
    value: 0x3040506070809,
  },
];

/** BYTES, with the highest byte of the last field cleared, so that it is a safe integer. */
function whole(): Uint8Array {
  const bytes = BYTES.slice();
  bytes[18] = 0;
  return bytes;
}

function detailOf(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    if (error instanceof ByteError) return error.detail;
    throw error;
  }
  return "no error";
}

describe("reading", () => {
  test("takes big-endian fields in order, and knows how far it is", () => {
    const reader = new ByteReader(whole());
    let offset = 0;
    for (const { read, value, bytes } of fields) {
      expect(reader.offset).toBe(offset);
      expect(reader.remaining).toBe(26 - offset);
      expect(read(reader)).toEqual(value);
      offset += bytes;
    }
    expect(reader.remaining).toBe(0);
    reader.end();
  });

  test("stays inside a view of a larger buffer", () => {
    const reader = new ByteReader(BYTES.subarray(4, 6));
    expect(reader.u8("a")).toBe(0xf4);
    expect(detailOf(() => reader.u16("b"))).toMatchObject({ code: "bytes-truncated", field: "b" });
    expect(reader.u8("b")).toBe(0xf5);
  });

  test("gives a view of bytes, not a copy", () => {
    const source = whole();
    const reader = new ByteReader(source.subarray(2));
    const view = reader.bytes("view", 4);
    source[2] = 0x77;
    expect(view[0]).toBe(0x77);
    expect(reader.bytes("nothing", 0)).toHaveLength(0);
    expect(reader.offset).toBe(4);
  });
});

describe("bytes that end too early", () => {
  test("are refused at every length, naming the field that is cut", () => {
    for (let length = 0; length < 26; length++) {
      const reader = new ByteReader(whole().subarray(0, length));
      let offset = 0;
      const cut = fields.find(({ bytes }) => {
        if (offset + bytes > length) return true;
        offset += bytes;
        return false;
      })!;
      const detail = detailOf(() => {
        for (const { read } of fields) read(reader);
      });
      expect(detail, `${length} bytes`).toEqual({
        code: "bytes-truncated",
        field: cut.name,
        offset,
        need: cut.bytes,
      });
    }
  });

  test("do not move the reader", () => {
    const reader = new ByteReader(Uint8Array.of(1, 2, 3));
    expect(detailOf(() => reader.u32("length"))).toMatchObject({ offset: 0, need: 4 });
    expect(reader.offset).toBe(0);
    expect(detailOf(() => reader.bytes("name", 2 ** 53 - 1))).toMatchObject({ field: "name" });
    expect(reader.u16("rest")).toBe(0x0102);
  });
});

test("trailing bytes are refused, with how many there are", () => {
  const reader = new ByteReader(Uint8Array.of(1, 2, 3));
  reader.u8("first");
  expect(
    detailOf(() => {
      reader.end();
    }),
  ).toEqual({ code: "bytes-trailing", offset: 1, extra: 2 });
});

test("a u64 becomes a number up to 2^53 - 1 and is refused from there on", () => {
  const read = (value: bigint): unknown => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(value);
    return new ByteReader(bytes).u64AsNumber("size");
  };
  expect(read(0n)).toBe(0);
  expect(read(2n ** 53n - 1n)).toBe(Number.MAX_SAFE_INTEGER);
  for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
    expect(detailOf(() => read(value))).toEqual({ code: "bytes-too-large", field: "size", value });
  }
});

test.each([-1, 0.5, NaN])("a length of %d is our own bug, not a way back", (length) => {
  expect(() => new ByteReader(BYTES).bytes("name", length)).toThrow(InvariantError);
});

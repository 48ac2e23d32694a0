import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { InvariantError } from "@vmferry/core";
import { decodeHeader, encodeHeader, readHeaderStart } from "./header-codec.ts";
import { SAMPLE_SUBJECT } from "./sample-page-file.ts";

const header = {
  ...SAMPLE_SUBJECT,
  salt: Buffer.from(Array.from({ length: 32 }, (_, i) => i)),
  keyId: Buffer.from("keyIdkey"),
};
const bytes = encodeHeader(header);

/** As it would be with a good checksum. */
function changed(change: (bytes: Buffer) => void): Buffer {
  const result = Buffer.from(bytes);
  change(result);
  result.writeUInt32BE(crc32(result.subarray(0, -4)), result.length - 4);
  return result;
}

test("a header has the bytes of its description", () => {
  expect(bytes.toString("hex")).toBe(
    [
      "766d666572727950 00000001 000000b0 00000001 00001000 0000000000000007 0000000000000040",
      "0c7d8f7e6a514a519c1e70b2bbb6030f",
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 6b657949646b6579",
      "0002 6d31 0004 64656d6f 00000002",
      "0006 70632e72616d 000000000003c000 0008 7667612e7672616d 0000000000004000",
      "000000000000000000000000",
      crc32(bytes.subarray(0, -4)).toString(16).padStart(8, "0"),
    ]
      .join("")
      .replaceAll(" ", ""),
  );
  expect(decodeHeader(bytes)).toEqual(header);
  expect(readHeaderStart(bytes)).toEqual({ headerBytes: bytes.length + 16 });
});

test("a truncated header is none, and neither is one with a changed byte", () => {
  for (let at = 0; at < bytes.length; at++) {
    expect(decodeHeader(bytes.subarray(0, at))).toBeNull();
    const flipped = Buffer.from(bytes);
    flipped[at]! ^= 0x10;
    expect(decodeHeader(flipped)).toBeNull();
  }
});

describe("with a good checksum", () => {
  test.each([
    ["magic", 0, 0x77],
    ["version", 11, 2],
    ["length", 15, 0xe0],
    ["scope", 19, 3],
    ["page size", 22, 0x20],
    ["epoch", 24, 0x20],
    ["number of pages", 39, 63],
    ["character of the migration", 98, 0x20],
    ["UTF-8", 102, 0xff],
    ["number of blocks", 109, 3],
    ["number of blocks", 109, 0],
    ["length of a block", 125, 1],
    ["padding", bytes.length - 5, 1],
  ])("another %s is refused", (_what, at, value) => {
    expect(
      decodeHeader(
        changed((copy) => {
          copy[at] = value;
        }),
      ),
    ).toBeNull();
  });
});

test("what begins in another way is no page file, and a newer version is told", () => {
  const start = (at: number, value: number): ReturnType<typeof readHeaderStart> => {
    const copy = Buffer.from(bytes);
    copy.writeUInt32BE(value, at);
    return readHeaderStart(copy);
  };
  expect(start(8, 7)).toEqual({ version: 7 });
  for (const [at, value] of [
    [0, 0],
    [4, 0],
    [8, 0],
    [12, 0],
    [12, 32],
    [12, 200],
    [12, 2 ** 31],
  ] as const) {
    expect(start(at, value)).toBeNull();
  }
  expect(readHeaderStart(bytes.subarray(0, 15))).toBeNull();
});

test.each([
  { migrationId: "" },
  { migrationId: "a/b" },
  { guestName: "" },
  { guestName: "x".repeat(513) },
  { guestName: "\ud800" },
  { uuid: "0C7D8F7E-6A51-4A51-9C1E-70B2BBB6030F" },
  { epoch: -1 },
  { epoch: 2 ** 53 },
  { blocks: [] },
  { blocks: [{ name: "pc.ram", lengthBytes: 4095 }] },
  { blocks: [{ name: "pc.ram", lengthBytes: 0 }] },
  { blocks: [{ name: "pc.ram", lengthBytes: 2 ** 46 }] },
  { blocks: Array.from({ length: 257 }, () => ({ name: "x", lengthBytes: 4096 })) },
])("a subject beyond the limits is not written: %o", (change) => {
  expect(() => encodeHeader({ ...header, ...change })).toThrow(InvariantError);
});

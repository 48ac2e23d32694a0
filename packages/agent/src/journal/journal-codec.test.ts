import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  decodeHead,
  decodeHeader,
  decodePayload,
  encodeFrame,
  encodeHeader,
  frameCrc,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  RECORD_HEAD_BYTES,
  type JournalHeader,
} from "./journal-codec.ts";

const header: JournalHeader = {
  role: "dest",
  guest: "web1",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
  incarnation: "00112233-4455-4677-8899-aabbccddeeff",
  firstSeq: 2 ** 33 + 5,
};
/** The checksums are those of another implementation. */
const HEADER_HEX =
  "766d66657272794a" + // magic
  "00000001" + // version
  "00000002" + // role
  "0000000200000005" + // firstSeq
  "00112233445546778899aabbccddeeff" + // incarnation
  "6ba7b8109dad41d180b400c04fd430c8" + // uuid
  "77656231" +
  "00".repeat(60) + // guest
  "16e039ae";

const record = { version: 1, type: 18, payload: Buffer.from('{"a":1}') };
const link = { seq: 2 ** 33 + 5, prevCrc: 0xfedcba98 };
const FRAME_HEX =
  "4a52" + // mark
  "01" + // version
  "12" + // type
  "00000007" + // payloadBytes
  "0000000200000005" + // seq
  "fedcba98" + // prevCrc
  "55dd0c7d" + // crc
  "f2725f5a" + // headCrc
  "7b2261223a317d"; // payload

function withHeaderCrc(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 120)), 120);
  return bytes;
}

function withHeadCrc(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 24)), 24);
  return bytes;
}

describe("the header of a journal", () => {
  test("has the documented bytes", () => {
    expect(encodeHeader(header).toString("hex")).toBe(HEADER_HEX);
    const bytes = Buffer.from(HEADER_HEX, "hex");
    const crc = bytes.readUInt32BE(HEADER_BYTES - 4);
    expect(decodeHeader(bytes)).toEqual({ kind: "header", header, crc });
    expect(decodeHeader(Buffer.concat([bytes, bytes]))).toEqual({ kind: "header", header, crc });
  });

  test("is damaged after every truncation and every flipped bit, or seems to be newer", () => {
    const bytes = encodeHeader(header);
    for (let length = 0; length < bytes.length; length++) {
      expect(decodeHeader(bytes.subarray(0, length)), `${length} bytes`).toEqual({
        kind: "damaged",
      });
    }
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
      expect(decodeHeader(bytes).kind, `bit ${bit}`).not.toBe("header");
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
    }
  });

  test("of a newer layout is told from a damaged one, whatever else it holds", () => {
    const bytes = Buffer.alloc(HEADER_BYTES, 0xff);
    bytes.write("vmferryJ", "latin1");
    bytes.writeUInt32BE(2, 8);
    expect(decodeHeader(bytes)).toEqual({ kind: "too-new", version: 2 });
  });

  test.each<[string, (bytes: Buffer) => void]>([
    ["version", (bytes) => bytes.writeUInt32BE(0, 8)],
    ["role", (bytes) => bytes.writeUInt32BE(0, 12)],
    ["role", (bytes) => bytes.writeUInt32BE(3, 12)],
    ["first number", (bytes) => bytes.writeBigUInt64BE(0n, 16)],
    ["first number", (bytes) => bytes.writeBigUInt64BE(2n ** 53n, 16)],
    ["name", (bytes) => bytes.fill(0, 56, 120)],
    ["name", (bytes) => bytes.writeUInt8(0x20, 56)],
    ["name", (bytes) => bytes.writeUInt8(0, 57)],
    ["name", (bytes) => bytes.writeUInt8(0xe4, 57)],
  ])("is damaged where its %s cannot be, although its checksum is right", (_what, change) => {
    const bytes = encodeHeader(header);
    change(bytes);
    expect(decodeHeader(withHeaderCrc(bytes))).toEqual({ kind: "damaged" });
  });

  test("is not written where it would not be read", () => {
    for (const wrong of [
      { guest: "" },
      { guest: "x".repeat(65) },
      { guest: "a b" },
      { uuid: "6ba7b8109dad41d180b400c04fd430c8" },
      { uuid: header.uuid.toUpperCase() },
      { incarnation: "i1" },
      { firstSeq: 0 },
      { firstSeq: 0.5 },
      { firstSeq: 2 ** 53 },
    ]) {
      expect(() => encodeHeader({ ...header, ...wrong })).toThrow("invariant broken");
    }
    const longest = { ...header, guest: "x".repeat(64) };
    expect(decodeHeader(encodeHeader(longest))).toMatchObject({ header: longest });
  });
});

describe("a record in a journal", () => {
  const { payload, ...numbers } = record;

  test("has the documented bytes", () => {
    const bytes = encodeFrame(record, link);
    expect(bytes.toString("hex")).toBe(FRAME_HEX);
    const head = decodeHead(Buffer.concat([bytes, bytes]))!;
    expect(head).toEqual({ ...numbers, ...link, payloadBytes: 7, crc: frameCrc(bytes) });
    expect(decodePayload(Buffer.concat([bytes, bytes]), head)).toEqual(payload);
  });

  test("is not whole after any truncation or flipped bit", () => {
    const bytes = encodeFrame(record, link);
    const isWhole = (some: Buffer): boolean => {
      const head = decodeHead(some);
      return head !== null && decodePayload(some, head) !== null;
    };
    expect(isWhole(bytes)).toBe(true);
    for (let length = 0; length < bytes.length; length++) {
      expect(isWhole(bytes.subarray(0, length)), `${length} bytes`).toBe(false);
    }
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
      expect(isWhole(bytes), `bit ${bit}`).toBe(false);
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
    }
  });

  test("says where it ends although its payload is damaged", () => {
    const bytes = encodeFrame(record, link);
    bytes[RECORD_HEAD_BYTES]! ^= 1;
    const head = decodeHead(bytes)!;
    expect(head.payloadBytes).toBe(7);
    expect(decodePayload(bytes, head)).toBeNull();
  });

  test("is none where its length or number is beyond the limits, although its checksum is right", () => {
    const bytes = encodeFrame(record, link);
    for (const length of [0, PAYLOAD_BYTES_MAX + 1, 2 ** 31, 2 ** 32 - 1]) {
      bytes.writeUInt32BE(length, 4);
      expect(decodeHead(withHeadCrc(bytes)), `${length} bytes`).toBeNull();
    }
    bytes.writeUInt32BE(PAYLOAD_BYTES_MAX, 4);
    expect(decodeHead(withHeadCrc(bytes))).toMatchObject({ payloadBytes: PAYLOAD_BYTES_MAX });
    for (const seq of [2n ** 53n, 2n ** 64n - 1n]) {
      bytes.writeBigUInt64BE(seq, 8);
      expect(decodeHead(withHeadCrc(bytes)), `number ${seq}`).toBeNull();
    }
  });

  test("is not written where it would not be read, or could pass for a torn one", () => {
    for (const wrong of [
      Buffer.alloc(0),
      Buffer.alloc(PAYLOAD_BYTES_MAX + 1, 0x20),
      Buffer.from("a\0b"),
    ]) {
      expect(() => encodeFrame({ ...numbers, payload: wrong }, link)).toThrow("invariant broken");
    }
    for (const seq of [0, -1, 1.5, 2 ** 53]) {
      expect(() => encodeFrame(record, { ...link, seq })).toThrow("invariant broken");
    }
    const longest = { ...numbers, payload: Buffer.alloc(PAYLOAD_BYTES_MAX, 0x20) };
    const bytes = encodeFrame(longest, link);
    expect(decodePayload(bytes, decodeHead(bytes)!)).toEqual(longest.payload);
  });
});

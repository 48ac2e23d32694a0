import { describe, expect, test } from "vitest";
import { encodeFrame, RECORD_BYTES_MAX, RECORD_HEAD_BYTES } from "./journal-codec.ts";
import { isTornAppend } from "./torn-append.ts";

const expected = { seq: 7, prevCrc: 0x12345678 };
const payload = Buffer.alloc(1200, "x");
const frame = encodeFrame({ version: 1, type: 2, payload }, expected);
/** The record's sectors then begin at its bytes 12, 524 and 1036: its head is in two of them. */
const AT = 500;

function without(from: number, to: number): Buffer {
  return Buffer.from(frame).fill(0, from, to);
}

describe("what an append can leave that never ended", () => {
  test("is any part of its record from the beginning on", () => {
    for (let length = 1; length < frame.length; length++) {
      expect(isTornAppend(frame.subarray(0, length), AT, expected), `${length} bytes`).toBe(true);
    }
  });

  test.each([
    ["first", 0, 12],
    ["second", 12, 524],
    ["third", 524, 1036],
    ["last", 1036, 1228],
    ["first two", 0, 524],
    ["last two", 524, 1228],
    ["all", 0, 1228],
  ])("is its record without a sector that was not written: the %s", (_which, from, to) => {
    expect(isTornAppend(without(from, to), AT, expected)).toBe(true);
  });

  test("is its record's length of zeros, or less", () => {
    for (const length of [1, RECORD_HEAD_BYTES, 1000, RECORD_BYTES_MAX]) {
      expect(isTornAppend(Buffer.alloc(length), AT, expected), `${length} bytes`).toBe(true);
    }
    expect(isTornAppend(Buffer.alloc(RECORD_BYTES_MAX + 1), AT, expected)).toBe(false);
  });
});

describe("what an append cannot leave", () => {
  test("is a whole record of which a bit is flipped, wherever that is", () => {
    const bytes = Buffer.from(frame);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
      expect(isTornAppend(bytes, AT, expected), `bit ${bit}`).toBe(false);
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
    }
  });

  test("is one in which less than a sector is zeros", () => {
    for (const [from, to] of [
      [0, 7],
      [1, 12],
      [12, 523],
      [16, 524],
      [1036, 1227],
    ] as const) {
      expect(isTornAppend(without(from, to), AT, expected), `${from} to ${to}`).toBe(false);
    }
  });

  test("is a record with something behind it", () => {
    const longer = Buffer.concat([without(524, 1036), Buffer.from("J")]);
    expect(isTornAppend(longer, AT, expected)).toBe(false);
    for (const [from, to] of [
      [0, 12],
      [12, 524],
      [0, 1228],
    ] as const) {
      const followed = Buffer.concat([without(from, to), frame]);
      expect(isTornAppend(followed, AT, expected), `${from} to ${to}`).toBe(false);
    }
  });

  test("is the beginning of a record that belongs elsewhere", () => {
    const part = frame.subarray(0, 600);
    expect(isTornAppend(part, AT, { ...expected, seq: 8 })).toBe(false);
    expect(isTornAppend(part, AT, { ...expected, prevCrc: 0 })).toBe(false);
  });

  test("is anything else that is longer than a record's head", () => {
    const rest = Buffer.alloc(RECORD_HEAD_BYTES, 0xff);
    expect(isTornAppend(rest, AT, expected)).toBe(false);
    expect(isTornAppend(rest.subarray(1), AT, expected)).toBe(true);
  });
});

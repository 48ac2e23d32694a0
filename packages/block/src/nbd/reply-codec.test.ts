import { InvariantError } from "@vmferry/core";
import { expect, test } from "vitest";
import { NbdErrno } from "./nbd-errno.ts";
import {
  encodeDataChunk,
  encodeErrorChunk,
  encodeHoleChunk,
  encodeSimpleReply,
  encodeStatusChunk,
} from "./reply-codec.ts";

const COOKIE = 0xf122334455667788n;
const DATA = { offset: 0x1_0000_0000, length: 0x1000 };
const STATUS = encodeStatusChunk(COOKIE, [
  { offset: 0, length: 512, kind: "data" },
  { offset: 512, length: 0xffff_fdff, kind: "zero" },
]);

test.each([
  ["a simple reply", encodeSimpleReply(COOKIE, 0), "67446698 00000000 f122334455667788"],
  ["a simple error", encodeSimpleReply(COOKIE, 28), "67446698 0000001c f122334455667788"],
  [
    "the only data chunk",
    encodeDataChunk({ cookie: COOKIE, done: true }, DATA),
    "668e33ef 0001 0001 f122334455667788 00001008 0000000100000000",
  ],
  [
    "a data chunk before others",
    encodeDataChunk({ cookie: COOKIE, done: false }, DATA),
    "668e33ef 0000 0001 f122334455667788 00001008 0000000100000000",
  ],
  [
    "a hole",
    encodeHoleChunk({ cookie: COOKIE, done: true }, DATA),
    "668e33ef 0001 0002 f122334455667788 0000000c 0000000100000000 00001000",
  ],
  [
    "a block status, up to the longest length that fits",
    STATUS,
    "668e33ef 0001 0005 f122334455667788 00000014 00000001 00000200 00000000 fffffdff 00000003",
  ],
  [
    "an error, with a constant text",
    encodeErrorChunk(COOKIE, NbdErrno.EIO),
    "668e33ef 0001 8001 f122334455667788 00000015 00000005 000f 746865206469736b206661696c6564",
  ],
])("%s", (_, bytes, expected) => {
  expect(bytes.toString("hex")).toBe(expected.replaceAll(" ", ""));
});

test.each(Object.entries(NbdErrno))("%s has a text of its own", (_, errno) => {
  const chunk = encodeErrorChunk(COOKIE, errno);
  expect(chunk.readUInt32BE(16)).toBe(chunk.length - 20);
  expect(chunk.readUInt16BE(24)).toBe(chunk.length - 26);
  expect(chunk.length).toBeGreaterThan(26);
});

test("a block status of no extents is our own bug", () => {
  expect(() => encodeStatusChunk(COOKIE, [])).toThrow(InvariantError);
});

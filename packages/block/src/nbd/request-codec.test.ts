import { ByteError } from "@vmferry/core";
import { expect, test } from "vitest";
import { NbdError } from "./nbd-error.ts";
import { decodeRequest } from "./request-codec.ts";

const WRITE = Buffer.from("25609513000100011122334455667788ffffffffffffffff80000000", "hex");

test("a request's header is decoded", () => {
  expect(decodeRequest(WRITE)).toEqual({
    flags: 1,
    command: 1,
    cookie: 0x1122334455667788n,
    offset: 2n ** 64n - 1n,
    length: 0x8000_0000,
  });
});

test("a header cut anywhere, or a byte too long, is refused", () => {
  for (let length = 0; length < WRITE.length; length++) {
    expect(() => decodeRequest(WRITE.subarray(0, length)), `${length} bytes`).toThrow(ByteError);
  }
  expect(() => decodeRequest(Buffer.concat([WRITE, Buffer.alloc(1)]))).toThrow(ByteError);
});

test.each(["25609514", "12560953", "21e41c71", "00000000"])("the magic %s is refused", (magic) => {
  const bytes = Buffer.concat([Buffer.from(magic, "hex"), WRITE.subarray(4)]);
  expect(() => decodeRequest(bytes)).toThrow(NbdError);
});

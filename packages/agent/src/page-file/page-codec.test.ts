import { zstdCompressSync } from "node:zlib";
import { expect, test } from "vitest";
import { packPage, unpackPage } from "./page-codec.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import { samplePage } from "./sample-page-file.ts";

/** As a page would be stored that is that frame. */
function stored(frame: Buffer, paddingBytes = (16 - ((frame.length + 2) % 16)) % 16): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(frame.length);
  return Buffer.concat([length, frame, Buffer.alloc(paddingBytes)]);
}

test("a page that becomes shorter is packed, and another is left as it is", () => {
  const packed = packPage(samplePage(2));
  expect(packed.length).toBeLessThan(200);
  expect(packed.length % 16).toBe(0);
  expect(unpackPage(Buffer.from(packed))).toEqual(samplePage(2));
  const noise = samplePage(1);
  expect(packPage(noise)).toBe(noise);
  expect(unpackPage(noise)).toBe(noise);
});

test.each([
  ["of less than a page", stored(zstdCompressSync(Buffer.alloc(PAGE_BYTES - 1)))],
  ["of more than a page", stored(zstdCompressSync(Buffer.alloc(PAGE_BYTES + 1)))],
  ["of a gigabyte", stored(zstdCompressSync(Buffer.alloc(2 ** 28)).subarray(0, 4000))],
  ["of two frames", stored(Buffer.concat([1, 2].map(() => zstdCompressSync(Buffer.alloc(2048)))))],
  ["with more behind it", stored(Buffer.concat([zstdCompressSync(samplePage(2)), Buffer.of(0)]))],
  ["with too much padding", stored(zstdCompressSync(Buffer.alloc(PAGE_BYTES)), 32)],
  ["that is none", stored(Buffer.from("no frame of zstd"))],
  ["that is empty", stored(Buffer.alloc(0), 14)],
  ["longer than what is stored", Buffer.from("ffff00000000000000000000000000", "hex")],
])("a frame %s is no page", (_what, bytes) => {
  expect(unpackPage(bytes)).toBeNull();
});

test("padding that is not zero makes it no page", () => {
  const bytes = stored(zstdCompressSync(Buffer.alloc(PAGE_BYTES)));
  expect(unpackPage(bytes)).toEqual(Buffer.alloc(PAGE_BYTES));
  bytes[bytes.length - 1] = 1;
  expect(unpackPage(bytes)).toBeNull();
});

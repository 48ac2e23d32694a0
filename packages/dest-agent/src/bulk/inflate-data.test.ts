import { zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import type { ProtocolError } from "@vmferry/protocol";
import { Inflater } from "./inflate-data.ts";

const PAGE_BYTES = 4096;
const inflater = new Inflater();
const inflateData = (compressed: Buffer, bytes: number): Buffer =>
  inflater.inflate(compressed, bytes);
const refused = expect.objectContaining({ code: "protocol-violation" }) as ProtocolError;

describe("compressed page data", () => {
  it("comes out as it went in", () => {
    const data = Buffer.alloc(3 * PAGE_BYTES, "vmferry ");
    expect(inflateData(zstdCompressSync(data), 3 * PAGE_BYTES).equals(data)).toBe(true);
  });

  it("may be a few bytes only, as of a small write to a disk", () => {
    for (const bytes of [1, 60, 64]) {
      const data = Buffer.alloc(bytes, "x");
      expect(inflateData(zstdCompressSync(data), bytes).equals(data)).toBe(true);
    }
  });

  it("is refused when it would become more than the run table says, before it does", () => {
    const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
    expect(() => inflateData(bomb, 64 * PAGE_BYTES)).toThrow(refused);
  });

  it("is refused when it is less than the run table says", () => {
    expect(() => inflateData(zstdCompressSync(Buffer.alloc(PAGE_BYTES)), 2 * PAGE_BYTES)).toThrow(
      refused,
    );
  });

  it("is refused when it is no zstd frame, or half of one", () => {
    const whole = zstdCompressSync(Buffer.alloc(2 * PAGE_BYTES, "half a frame "));
    expect(() => inflateData(Buffer.alloc(100, 7), 1 * PAGE_BYTES)).toThrow(refused);
    expect(() => inflateData(whole.subarray(0, whole.length / 2), 2 * PAGE_BYTES)).toThrow(refused);
    expect(() => inflateData(Buffer.alloc(0), 1 * PAGE_BYTES)).toThrow(refused);
  });

  it("is refused when something follows it", () => {
    const whole = zstdCompressSync(Buffer.alloc(PAGE_BYTES, "x"));
    expect(() => inflateData(Buffer.concat([whole, Buffer.from("more")]), 1 * PAGE_BYTES)).toThrow(
      refused,
    );
  });

  it("is refused when its window is larger than any source needs", () => {
    // Magic, no content size, window descriptor, one last RLE block of 8192 bytes of "A".
    const withWindow = (descriptor: string): Buffer =>
      Buffer.from(`28b52ffd00${descriptor}03000141`, "hex");
    expect(
      inflateData(withWindow("50"), 2 * PAGE_BYTES).equals(Buffer.alloc(2 * PAGE_BYTES, "A")),
    ).toBe(true);
    expect(() => inflateData(withWindow("88"), 2 * PAGE_BYTES)).toThrow(refused);
  });

  it("is refused for a frame that carries no data pages", () => {
    expect(() => inflateData(zstdCompressSync(Buffer.alloc(0)), 0 * PAGE_BYTES)).toThrow(refused);
  });
});

import { zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import type { ProtocolError } from "@vmferry/protocol";
import { inflatePages } from "./inflate-pages.ts";

const PAGE_BYTES = 4096;
const refused = expect.objectContaining({ code: "protocol-violation" }) as ProtocolError;

describe("compressed page data", () => {
  it("comes out as it went in", () => {
    const data = Buffer.alloc(3 * PAGE_BYTES, "vmferry ");
    expect(inflatePages(zstdCompressSync(data), 3).equals(data)).toBe(true);
  });

  it("is refused when it would become more than the run table says, before it does", () => {
    const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
    expect(() => inflatePages(bomb, 64)).toThrow(refused);
  });

  it("is refused when it is less than the run table says", () => {
    expect(() => inflatePages(zstdCompressSync(Buffer.alloc(PAGE_BYTES)), 2)).toThrow(refused);
  });

  it("is refused when it is no zstd frame, or half of one", () => {
    const whole = zstdCompressSync(Buffer.alloc(2 * PAGE_BYTES, "half a frame "));
    expect(() => inflatePages(Buffer.alloc(100, 7), 1)).toThrow(refused);
    expect(() => inflatePages(whole.subarray(0, whole.length / 2), 2)).toThrow(refused);
    expect(() => inflatePages(Buffer.alloc(0), 1)).toThrow(refused);
  });

  it("is refused when something follows it", () => {
    const whole = zstdCompressSync(Buffer.alloc(PAGE_BYTES, "x"));
    expect(() => inflatePages(Buffer.concat([whole, Buffer.from("more")]), 1)).toThrow(refused);
  });

  it("is refused when its window is larger than any source needs", () => {
    // Magic, no content size, window descriptor, one last RLE block of 8192 bytes of "A".
    const withWindow = (descriptor: string): Buffer =>
      Buffer.from(`28b52ffd00${descriptor}03000141`, "hex");
    expect(inflatePages(withWindow("50"), 2).equals(Buffer.alloc(2 * PAGE_BYTES, "A"))).toBe(true);
    expect(() => inflatePages(withWindow("88"), 2)).toThrow(refused);
  });

  it("is refused for a frame that carries no data pages", () => {
    expect(() => inflatePages(zstdCompressSync(Buffer.alloc(0)), 0)).toThrow(refused);
  });
});

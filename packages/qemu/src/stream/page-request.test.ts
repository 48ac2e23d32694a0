import { describe, expect, it } from "vitest";

import { pageRequestOf, receivedBitmapBytes } from "./page-request.ts";
import type { RamBlock } from "./ram-block.ts";
import { ReturnPathDecoder } from "./return-path-decoder.ts";
import { encodeRecvBitmap, encodeReqPages } from "./return-path-encoder.ts";
import { ReturnPathError, type ReturnPathMessage } from "./return-path-message.ts";

const HUGE = 2 ** 21;
const BLOCKS: readonly RamBlock[] = [
  { name: "pc.ram", lengthBytes: 65_536 },
  { name: "huge", lengthBytes: 4 * HUGE, hostPageBytes: HUGE },
];

function request(block: string, startBytes: number, lengthBytes: number) {
  return { type: "req-pages", block, startBytes, lengthBytes } as const;
}

function decode(bytes: Buffer, blocks = BLOCKS): ReturnPathMessage[] {
  const messages: ReturnPathMessage[] = [];
  const limits = { bitmapBytesMax: 2 ** 20, blocks: () => blocks };
  new ReturnPathDecoder((message) => messages.push(message), limits).push(bytes);
  return messages;
}

function codeOf(step: () => unknown): string {
  try {
    step();
  } catch (error) {
    if (error instanceof ReturnPathError) return error.code;
    throw error;
  }
  return "accepted";
}

describe("a request for pages", () => {
  it("is one host page of a block", () => {
    expect(pageRequestOf(request("pc.ram", 61_440, 4096), BLOCKS)).toEqual({
      block: 0,
      firstPage: 15,
      pageCount: 1,
    });
    expect(pageRequestOf(request("huge", HUGE, HUGE), BLOCKS)).toEqual({
      block: 1,
      firstPage: 512,
      pageCount: 512,
    });
  });

  it.each([
    ["behind its block", request("pc.ram", 65_536, 4096), "return-path-bad-request"],
    ["far behind it", request("pc.ram", 2 ** 52, 4096), "return-path-bad-request"],
    ["of two pages", request("pc.ram", 0, 8192), "return-path-bad-request"],
    ["of a piece of a host page", request("huge", 0, 4096), "return-path-bad-request"],
    ["across host pages", request("huge", 4096, HUGE), "return-path-bad-request"],
    ["of another block", request("pc.rom", 0, 4096), "return-path-unknown-block"],
  ])("is refused %s", (_what, message, code) => {
    expect(codeOf(() => pageRequestOf(message, BLOCKS))).toBe(code);
    expect(codeOf(() => decode(encodeReqPages(message)))).toBe(code);
  });

  it("is refused while no block is known", () => {
    const bytes = encodeReqPages(request("pc.ram", 0, 4096));
    expect(codeOf(() => decode(bytes, []))).toBe("return-path-unknown-block");
  });
});

describe("a bitmap of received pages", () => {
  it.each([
    [4096, 8],
    [64 * 4096, 8],
    [65 * 4096, 16],
    [96 * 2 ** 20, 3072],
  ])("of %d bytes has %d bytes", (lengthBytes, bytes) => {
    expect(receivedBitmapBytes({ lengthBytes })).toBe(bytes);
  });

  it("is as long as its block has it, which is known before it is made room for", () => {
    expect(decode(encodeRecvBitmap("pc.ram", Buffer.alloc(8)))).toHaveLength(1);
    const head = encodeRecvBitmap("pc.ram", Buffer.alloc(16)).subarray(0, 19);
    expect(codeOf(() => decode(head))).toBe("return-path-bad-bitmap");
    const unknown = encodeRecvBitmap("pc.rom", Buffer.alloc(8));
    expect(codeOf(() => decode(unknown))).toBe("return-path-unknown-block");
  });
});

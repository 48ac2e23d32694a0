import { readFileSync } from "node:fs";

import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { InvariantError } from "@vmferry/core";

import { str8, u16, u32, u64 } from "./naive-stream.ts";
import { ReturnPathDecoder } from "./return-path-decoder.ts";
import {
  encodePong,
  encodeRecvBitmap,
  encodeReqPages,
  encodeResumeAck,
  encodeReturnPath,
  encodeShut,
  encodeSwitchoverAck,
} from "./return-path-encoder.ts";
import { ReturnPathError, type ReturnPathMessage } from "./return-path-message.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const BITMAP_END = u64(0x0123456789abcdefn);

function decode(pieces: readonly Buffer[], bitmapBytesMax = 1 << 20): ReturnPathMessage[] {
  const messages: ReturnPathMessage[] = [];
  const decoder = new ReturnPathDecoder((message) => messages.push(message), { bitmapBytesMax });
  for (const piece of pieces) decoder.push(piece);
  decoder.end();
  return messages;
}

function refusal(bytes: Buffer, bitmapBytesMax?: number): ReturnPathError["detail"] {
  try {
    decode([bytes], bitmapBytesMax);
  } catch (error) {
    if (error instanceof ReturnPathError) return error.detail;
    throw error;
  }
  throw new Error("it was accepted");
}

function message(type: number, payload: Buffer): Buffer {
  return Buffer.concat([u16(type), u16(payload.length), payload]);
}

function fixture(name: string): Buffer {
  return readFileSync(new URL(`fixtures/${name}`, import.meta.url));
}

describe("golden messages", () => {
  it.each([
    ["0001000400000000", { type: "shut", value: 0 }, encodeShut(0)],
    ["00020004deadbeef", { type: "pong", value: 0xdeadbeef }, encodePong(0xdeadbeef)],
    ["0006000400000001", { type: "resume-ack", value: 1 }, encodeResumeAck(1)],
    ["00070000", { type: "switchover-ack" }, encodeSwitchoverAck()],
    [
      "0003001300000000018ba000000010000670632e72616d",
      { type: "req-pages", block: "pc.ram", startBytes: 0x18ba000, lengthBytes: 4096 },
      encodeReqPages({ block: "pc.ram", startBytes: 0x18ba000, lengthBytes: 4096 }),
    ],
    [
      "000500030270630000000000000008ff000000000000010123456789abcdef",
      { type: "recv-bitmap", block: "pc", bitmap: Buffer.from("ff00000000000001", "hex") },
      encodeRecvBitmap("pc", Buffer.from("ff00000000000001", "hex")),
    ],
  ])("are %s both ways", (hex, decoded, encoded) => {
    expect(encoded.toString("hex")).toBe(hex);
    expect(decode([Buffer.from(hex, "hex")])).toEqual([decoded]);
  });

  it("let a request without a name mean the block of the one before it", () => {
    const bytes = Buffer.concat([
      encodeReqPages({ block: "pc.ram", startBytes: 0, lengthBytes: 4096 }),
      encodePong(4),
      encodeReqPages({ startBytes: 2 ** 40, lengthBytes: 2 ** 21 }),
    ]);
    expect(bytes.subarray(-16).toString("hex")).toBe("0004000c000001000000000000200000");
    expect(decode([bytes]).at(-1)).toEqual({
      type: "req-pages",
      block: "pc.ram",
      startBytes: 2 ** 40,
      lengthBytes: 2 ** 21,
    });
  });
});

describe("recorded return paths of QEMU 7.2", () => {
  const postcopy: readonly ReturnPathMessage[] = [
    { type: "pong", value: 1 },
    { type: "pong", value: 2 },
    { type: "pong", value: 4 },
    { type: "pong", value: 3 },
    { type: "req-pages", block: "pc.ram", startBytes: 0x18ba000, lengthBytes: 4096 },
    { type: "req-pages", block: "pc.ram", startBytes: 0x18d6000, lengthBytes: 4096 },
    { type: "shut", value: 0 },
  ];

  it("decode to the messages of a post-copy, however they are cut", () => {
    const recorded = fixture("postcopy72_returnpath.bin");
    expect(decode([recorded])).toEqual(postcopy);
    for (let cut = 1; cut < recorded.length; cut++) {
      expect(decode([recorded.subarray(0, cut), recorded.subarray(cut)])).toEqual(postcopy);
    }
  });

  it("decode to the bitmaps of a recovery, and encode to the same bytes again", () => {
    const recorded = fixture("recovery72_returnpath.bin");
    const messages = decode([recorded]);
    expect(messages[0]).toMatchObject({ type: "recv-bitmap", block: "pc.ram" });
    expect(messages[0]?.type === "recv-bitmap" && messages[0].bitmap.length).toBe(0xc00);
    expect(messages.map(({ type }) => type)).toContain("resume-ack");
    expect(messages.at(-1)).toEqual({ type: "shut", value: 0 });
    expect(decode(Array.from(recorded, (byte) => Buffer.of(byte)))).toEqual(messages);
    let block: string | null = null;
    const encoded = messages.map((each) => {
      if (each.type !== "req-pages") return encodeReturnPath(each);
      const { startBytes, lengthBytes } = each;
      const isSame = each.block === block;
      block = each.block;
      return isSame ? encodeReqPages({ startBytes, lengthBytes }) : encodeReturnPath(each);
    });
    expect(Buffer.concat(encoded).equals(recorded)).toBe(true);
  });
});

describe("a damaged return path", () => {
  const whole: readonly Buffer[] = [
    encodePong(1),
    encodeReqPages({ block: "pc.ram", startBytes: 4096, lengthBytes: 4096 }),
    encodeRecvBitmap("pc.rom", Buffer.alloc(16, 0xa5)),
    encodeSwitchoverAck(),
    encodeResumeAck(1),
    encodeShut(0),
  ];

  it("is refused when it is closed inside a message, and only then", () => {
    const bytes = Buffer.concat(whole);
    const boundaries = new Set<number>();
    let at = 0;
    for (const each of whole) boundaries.add((at += each.length));
    for (let length = 1; length <= bytes.length; length++) {
      const cut = bytes.subarray(0, length);
      if (boundaries.has(length)) expect(() => decode([cut])).not.toThrow();
      else expect(refusal(cut)).toEqual({ code: "return-path-truncated" });
    }
  });

  it("is refused when anything follows SHUT, which is reported nevertheless", () => {
    const messages: ReturnPathMessage[] = [];
    const decoder = new ReturnPathDecoder((each) => messages.push(each), { bitmapBytesMax: 0 });
    expect(() => {
      decoder.push(Buffer.concat([encodeShut(1), Buffer.of(0)]));
    }).toThrow(ReturnPathError);
    expect(messages).toEqual([{ type: "shut", value: 1 }]);
    expect(() => {
      decoder.push(encodePong(1));
    }).toThrow(/follows SHUT/);
  });

  it.each([0, 8, 0xffff])("is refused with a message of type %d", (type) => {
    expect(refusal(message(type, Buffer.alloc(4)))).toEqual({
      code: "return-path-unknown-type",
      type,
    });
  });

  it.each([
    ["SHUT", 1, 5],
    ["PONG", 2, 0],
    ["REQ_PAGES_ID", 3, 13],
    ["REQ_PAGES_ID", 3, 12],
    ["REQ_PAGES", 4, 13],
    ["RECV_BITMAP", 5, 1],
    ["RECV_BITMAP", 5, 0],
    ["RESUME_ACK", 6, 3],
    ["SWITCHOVER_ACK", 7, 1],
  ])("is refused with %s (%d) of %d bytes", (name, type, payloadBytes) => {
    expect(refusal(message(type, Buffer.alloc(payloadBytes)))).toEqual({
      code: "return-path-bad-length",
      message: name,
      payloadBytes,
    });
  });

  it("is refused where a block name does not fill its message", () => {
    const range = Buffer.concat([u64(0n), u32(4096)]);
    const long = Buffer.concat([range, str8("pc.ram"), Buffer.of(0)]);
    expect(refusal(message(3, long))).toMatchObject({ code: "return-path-bad-length" });
    expect(refusal(message(5, Buffer.from("0570632e7261", "hex").subarray(0, 5)))).toMatchObject({
      code: "return-path-bad-length",
    });
  });

  it("is refused before the payload where its length is over 512", () => {
    expect(refusal(Buffer.concat([u16(3), u16(513)]))).toMatchObject({
      code: "return-path-over-limit",
      field: "payload",
      value: 513,
    });
  });

  it.each([
    ["start", 1n, 4096],
    ["start", 4095n, 4096],
    ["length", 4096n, 4095],
    ["length", 4096n, 0],
  ])("is refused with a request whose %s is not whole pages", (field, start, length) => {
    const payload = Buffer.concat([u64(start), u32(length), str8("pc.ram")]);
    expect(refusal(message(3, payload))).toMatchObject({ code: "return-path-unaligned", field });
  });

  it("is refused with a request beyond 2^53", () => {
    const payload = Buffer.concat([u64(2n ** 53n), u32(4096), str8("pc.ram")]);
    expect(refusal(message(3, payload))).toMatchObject({ code: "return-path-over-limit" });
  });

  it("is refused when the first request names no block", () => {
    const payload = Buffer.concat([u64(0n), u32(4096)]);
    expect(refusal(message(4, payload))).toEqual({ code: "return-path-no-block" });
  });

  it("is refused with a bitmap over the limit, before its bytes", () => {
    const head = Buffer.concat([message(5, str8("pc.ram")), u64(32n)]);
    expect(refusal(head, 24)).toEqual({
      code: "return-path-over-limit",
      field: "bitmap",
      value: 32,
      limit: 24,
    });
    expect(refusal(head, 32)).toEqual({ code: "return-path-truncated" });
  });

  it.each([0n, 12n])("is refused with a bitmap of %d bytes", (size) => {
    const bytes = Buffer.concat([message(5, str8("pc.ram")), u64(size)]);
    expect(refusal(bytes)).toMatchObject({ code: "return-path-bad-bitmap" });
  });

  it("is refused with a wrong mark behind a bitmap", () => {
    const bitmap = encodeRecvBitmap("pc.ram", Buffer.alloc(8));
    for (let at = 1; at <= BITMAP_END.length; at++) {
      const damaged = Buffer.from(bitmap);
      damaged[bitmap.length - at]! ^= 1;
      expect(refusal(damaged)).toMatchObject({ code: "return-path-bad-bitmap" });
    }
  });
});

describe("the return-path codec", () => {
  it("reads back what it wrote, in random chunks", () => {
    const value = fc.nat(0xffffffff);
    const anyMessage: fc.Arbitrary<ReturnPathMessage> = fc.oneof(
      value.map((each): ReturnPathMessage => ({ type: "pong", value: each })),
      value.map((each): ReturnPathMessage => ({ type: "resume-ack", value: each })),
      fc.constant<ReturnPathMessage>({ type: "switchover-ack" }),
      fc
        .tuple(fc.nat(2 ** 31), fc.integer({ min: 1, max: 512 }), fc.constantFrom("a", "pc.ram"))
        .map(([page, pages, block]): ReturnPathMessage => ({
          type: "req-pages",
          block,
          startBytes: page * 4096,
          lengthBytes: pages * 4096,
        })),
      fc
        .tuple(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.constantFrom("a", "pc.ram"))
        .map(([word, block]): ReturnPathMessage => ({
          type: "recv-bitmap",
          block,
          bitmap: u64(word),
        })),
    );
    fc.assert(
      fc.property(
        fc.array(anyMessage),
        fc.array(fc.integer({ min: 1, max: 30 })),
        (sent, sizes) => {
          const bytes = Buffer.concat(sent.map((each) => encodeReturnPath(each)));
          const pieces: Buffer[] = [];
          let at = 0;
          for (const size of sizes) {
            pieces.push(bytes.subarray(at, at + size));
            at = Math.min(bytes.length, at + size);
          }
          expect(decode([...pieces, bytes.subarray(at)])).toEqual(sent);
        },
      ),
      { seed, numRuns: 300 },
    );
  });

  it("refuses to write what it would not read", () => {
    const request = { block: "pc.ram", startBytes: 0, lengthBytes: 4096 };
    for (const wrong of [
      { startBytes: 1 },
      { startBytes: -4096 },
      { lengthBytes: 0 },
      { lengthBytes: 100 },
      { block: "" },
      { block: "x".repeat(256) },
    ]) {
      expect(() => encodeReqPages({ ...request, ...wrong })).toThrow(InvariantError);
    }
    expect(() => encodeRecvBitmap("pc.ram", Buffer.alloc(7))).toThrow(InvariantError);
  });
});

import { crc32c } from "@node-rs/crc32";
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  ASK_UNITS_MAX,
  BLOCK_MESSAGE_BYTES_MAX,
  BlockContent,
  decodeBlockAnswer,
  decodeBlockQuestion,
  encodeBlockMessage,
  KEPT_RUNS_MAX,
  Urgency,
  type BlockAnswer,
  type BlockQuestion,
} from "./block-message.ts";
import { ruleOf } from "./broken-rule.ts";
import { FRAME_DISK_BYTES_MAX } from "./limits.ts";
import { ProtocolError } from "./protocol-error.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const NONE = Buffer.alloc(0);

const questions: readonly (readonly [string, BlockQuestion, string])[] = [
  [
    "an urgent ask",
    { kind: "ask", disk: 1, urgency: Urgency.URGENT, first: 0x12345, count: 3 },
    "01010001" + "00012345" + "00000003",
  ],
  [
    "a background ask",
    { kind: "ask", disk: 23, urgency: Urgency.BACKGROUND, first: 0, count: ASK_UNITS_MAX },
    "01020017" + "00000000" + "00000040",
  ],
  [
    "what was kept",
    {
      kind: "kept",
      disk: 0,
      runs: [
        { first: 1, count: 2 },
        { first: 3, count: 0xffff },
      ],
    },
    "03000000" + "00000002" + "00000001" + "00000002" + "00000003" + "0000ffff",
  ],
  ["the end", { kind: "end", disk: 2, digest: "ab".repeat(32) }, "04000002" + "ab".repeat(32)],
];
const answers: readonly (readonly [string, BlockAnswer, string])[] = [
  [
    "a raw unit",
    blocks(BlockContent.RAW, { hash: 0x0102030405060708n, data: Buffer.from("abc") }),
    "02010005" + "00000007" + "00000001" + "0102030405060708" + "616263",
  ],
  [
    "a compressed unit",
    blocks(BlockContent.ZSTD, { hash: 1n, data: Buffer.from([0x28]) }),
    "02020005" + "00000007" + "00000001" + "0000000000000001" + "28",
  ],
  [
    "zeros",
    blocks(BlockContent.ZERO, { count: 64 }),
    "02030005" + "00000007" + "00000040" + "0000000000000000",
  ],
  [
    "a hole",
    blocks(BlockContent.HOLE, { count: 2 }),
    "02040005" + "00000007" + "00000002" + "0000000000000000",
  ],
  [
    "units that cannot be read",
    blocks(BlockContent.UNREADABLE, {}),
    "02050005" + "00000007" + "00000001" + "0000000000000000",
  ],
  ["equality", { kind: "verdict", disk: 3, equal: true }, "05010003"],
  ["a difference", { kind: "verdict", disk: 3, equal: false }, "05020003"],
];

function blocks(
  content: BlockContent,
  parts: { readonly count?: number; readonly hash?: bigint; readonly data?: Buffer },
): BlockAnswer {
  const { count = 1, hash = 0n, data = NONE } = parts;
  return { kind: "blocks", disk: 5, content, first: 7, count, hash, data };
}

/** The bytes with their checksum put right, so that what is behind it is looked at. */
function sealed(hex: string): Buffer {
  const bytes = Buffer.from(`00000000${hex}`, "hex");
  bytes.writeUInt32BE(crc32c(bytes.subarray(4)), 0);
  return bytes;
}

describe("a message about blocks", () => {
  test.each(questions)("has the bytes of %s", (_, message, hex) => {
    expect(encodeBlockMessage(message).toString("hex", 4)).toBe(hex);
    expect(decodeBlockQuestion(sealed(hex))).toEqual(message);
  });

  test.each(answers)("has the bytes of %s", (_, message, hex) => {
    expect(encodeBlockMessage(message).toString("hex", 4)).toBe(hex);
    expect(decodeBlockAnswer(sealed(hex))).toEqual(message);
  });

  it("has a checksum that another implementation has computed", () => {
    expect(encodeBlockMessage({ kind: "verdict", disk: 3, equal: true }).toString("hex")).toBe(
      "5811b10605010003",
    );
  });

  test.each([...questions, ...answers])(
    "is refused at every length but its own: %s",
    (_, message) => {
      const whole = encodeBlockMessage(message);
      const decode = decoderOf(message);
      for (let length = 0; length < whole.length; length++) {
        expect(ruleOf(() => decode(whole.subarray(0, length)))).not.toBe("accepted");
      }
    },
  );

  test.each([...questions, ...answers])("is refused with any bit flipped: %s", (_, message) => {
    const whole = encodeBlockMessage(message);
    const decode = decoderOf(message);
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const flipped = Buffer.from(whole);
      flipped[bit >>> 3]! ^= 1 << (bit & 7);
      expect(ruleOf(() => decode(flipped))).toBe("frame-corrupt");
    }
  });

  test.each([
    ["ask urgency", "010300000000000000000001"],
    ["unit count", "010100000000000000000000"],
    ["unit count", "010100000000000000000041"],
    ["unit beyond every disk", "01010000ffffffff00000002"],
    ["block message disk index", "010100180000000000000001"],
    ["ask length", "01010000000000000000000100"],
    ["kept run count", "0300000000000000"],
    ["kept runs out of order", "030000000000000200000001000000020000000200000001"],
    ["kept runs out of order", "03000000000000010000000100000000"],
    ["kept length", "03000000000000010000000100000001" + "00"],
    ["kept run count", `0300000000000401${"00".repeat(8 * 1025)}`],
    ["end length", `04000000${"ab".repeat(31)}`],
    ["block message detail", `04010000${"ab".repeat(32)}`],
    ["block message kind", "00000000"],
    ["block message kind", "06000000"],
    ["block message of a source from a dest", "05010000"],
    ["block message of a source from a dest", "02040000000000000000000100000000" + "00000000"],
  ])("of a dest that lies is refused: %s", (rule, hex) => {
    expect(ruleOf(() => decodeBlockQuestion(sealed(hex)))).toBe(rule);
  });

  test.each([
    ["blocks content", "0200000000000000000000010000000000000000"],
    ["blocks content", "0206000000000000000000010000000000000000"],
    ["blocks count", "020100000000000000000002000000000000000161"],
    ["blocks without data", "0201000000000000000000010000000000000001"],
    ["blocks hash", "020100000000000000000001000000000000000061"],
    ["blocks hash", "0203000000000000000000010000000000000001"],
    ["blocks data length", "020300000000000000000001000000000000000000"],
    ["unit count", "0203000000000000000000410000000000000000"],
    ["unit beyond every disk", "02030000ffffffff000000020000000000000000"],
    ["verdict", "05000000"],
    ["verdict", "05030000"],
    ["verdict length", "0501000000"],
    ["block message of a dest from a source", "010100000000000000000001"],
  ])("of a source that lies is refused: %s", (rule, hex) => {
    expect(ruleOf(() => decodeBlockAnswer(sealed(hex)))).toBe(rule);
  });

  it("is refused before its checksum is made when it is too long", () => {
    const bytes = Buffer.alloc(BLOCK_MESSAGE_BYTES_MAX + 1);
    expect(ruleOf(() => decodeBlockAnswer(bytes))).toBe("block message too large");
  });

  it("holds the largest unit and the longest table", () => {
    const data = Buffer.alloc(FRAME_DISK_BYTES_MAX, 1);
    const whole = encodeBlockMessage(blocks(BlockContent.RAW, { hash: 1n, data }));
    expect(whole.length).toBe(BLOCK_MESSAGE_BYTES_MAX);
    const runs = Array.from({ length: KEPT_RUNS_MAX }, (_, i) => ({ first: i * 2, count: 1 }));
    const kept = encodeBlockMessage({ kind: "kept", disk: 0, runs });
    expect(decodeBlockQuestion(kept)).toEqual({ kind: "kept", disk: 0, runs });
  });

  it("is either understood or a broken protocol, whatever comes", () => {
    const anything = fc.uint8Array({ maxLength: 120 }).map((bytes) => {
      const sealedBytes = Buffer.concat([Buffer.alloc(4), bytes]);
      sealedBytes.writeUInt32BE(crc32c(sealedBytes.subarray(4)), 0);
      return sealedBytes;
    });
    const property = fc.property(anything, fc.nat(6), (bytes, kind) => {
      if (bytes.length > 4) {
        bytes[4] = kind;
        bytes.writeUInt32BE(crc32c(bytes.subarray(4)), 0);
      }
      for (const decode of [decodeBlockQuestion, decodeBlockAnswer]) {
        try {
          const message = decode(bytes);
          expect(encodeBlockMessage(message).equals(bytes)).toBe(true);
        } catch (error) {
          if (!(error instanceof ProtocolError)) throw error;
        }
      }
    });
    fc.assert(property, { seed, numRuns: 3000 });
  });
});

function decoderOf(message: BlockQuestion | BlockAnswer): (bytes: Buffer) => unknown {
  return message.kind === "blocks" || message.kind === "verdict"
    ? decodeBlockAnswer
    : decodeBlockQuestion;
}

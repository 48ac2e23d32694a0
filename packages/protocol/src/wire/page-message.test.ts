import { InvariantError } from "@vmferry/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ruleOf } from "./broken-rule.ts";
import { openFrame } from "./bulk-frame.ts";
import { naivePages } from "./naive-frame.ts";
import { naiveDecode, naiveEncode, naiveMessage, resealed } from "./naive-page-message.ts";
import {
  decodePageMessage,
  encodePageMessage,
  isPageMessage,
  type PageMessage,
} from "./page-message.ts";
import { ProtocolError } from "./protocol-error.ts";

/* SEED= replays a run, FUZZ= says how many inputs the last test makes. */
const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const INPUTS = Number(process.env["FUZZ"] ?? 10_000);

function refusal(bytes: Buffer): string {
  return ruleOf(() => decodePageMessage(bytes));
}

function decoded(bytes: Buffer): PageMessage | null {
  try {
    return decodePageMessage(bytes);
  } catch (error) {
    if (error instanceof ProtocolError) return null;
    throw error;
  }
}

const golden: readonly (readonly [string, string, PageMessage])[] = [
  [
    "REQUEST",
    "24ad45d0811000fffffffff0",
    { kind: "request", block: 255, firstPage: 0xffff_fff0, pages: 16 },
  ],
  [
    "PLACED of the urgent lane",
    "d7f3d5f88201000000001028",
    { kind: "placed", lane: "urgent", bytes: 4136 },
  ],
  [
    "PLACED of the background",
    "27122d888202000001000000",
    { kind: "placed", lane: "background", bytes: 16_777_216 },
  ],
  [
    "MISSING",
    "db73a74b8300000200020000000000010000000200000003fffffffd",
    {
      kind: "missing",
      block: 2,
      runs: [
        { first: 1, count: 2 },
        { first: 3, count: 0xffff_fffd },
      ],
      last: false,
    },
  ],
  [
    "MISSING of nothing",
    "0b6e8f4f8301000000000000",
    { kind: "missing", block: 0, runs: [], last: true },
  ],
  [
    "SERVED",
    "307b590484010000d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
    { kind: "served", ramDigest: "d1".repeat(32) },
  ],
  ["SERVED without a digest", "61e5b30b84000000", { kind: "served", ramDigest: null }],
  ["ALL", "bca019b385000000", { kind: "all" }],
];

describe("golden page messages, both ways", () => {
  test.each(golden)("%s", (_, hex, message) => {
    expect(encodePageMessage(message).toString("hex")).toBe(hex);
    expect(decodePageMessage(Buffer.from(hex, "hex"))).toEqual(message);
    expect(isPageMessage(Buffer.from(hex, "hex"))).toBe(true);
  });

  test.each(golden)("%s is refused when it is cut at any byte, or has more", (_, hex) => {
    const whole = Buffer.from(hex, "hex");
    for (let bytes = 0; bytes < whole.length; bytes++) {
      const cut = Buffer.from(whole.subarray(0, bytes));
      if (bytes < 8) {
        expect(refusal(cut), `${bytes}`).toBe("page message shorter than its header");
        continue;
      }
      expect(refusal(cut), `${bytes}`).toBe("frame-corrupt");
      // And once more with a checksum that is right for what is left.
      expect(refusal(resealed(cut)), `${bytes}`).toMatch(/^length of/);
    }
    for (const more of [1, 4, 8]) {
      expect(refusal(resealed(Buffer.concat([whole, Buffer.alloc(more)])))).toMatch(/^length of/);
    }
  });

  test.each(golden)("%s is corrupt when any one of its bits is flipped", (_, hex) => {
    const bytes = Buffer.from(hex, "hex");
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
      expect(refusal(bytes), `bit ${bit}`).toBe("frame-corrupt");
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
    }
  });

  test.each(golden)("%s is not taken for a frame", (_, hex) => {
    expect(ruleOf(() => openFrame(Buffer.from(hex, "hex")))).toMatch(/^frame (version|shorter)/);
  });
});

describe("a page message with a right checksum", () => {
  test("is refused for every kind that there is not", () => {
    for (let kind = 0; kind < 256; kind++) {
      const rule = refusal(naiveMessage(kind, 1, 1, 1));
      const isKnown = kind >= 129 && kind <= 133;
      if (!isKnown) expect(rule, `${kind}`).toBe("page message of an unknown kind");
    }
  });

  test.each([
    ["no pages", naiveMessage(129, 0, 0, 7), "pages of REQUEST"],
    ["17 pages", naiveMessage(129, 17, 0, 7), "pages of REQUEST"],
    ["block 256", naiveMessage(129, 1, 256, 7), "block of REQUEST"],
    ["a page beyond 2^32", naiveMessage(129, 2, 0, 2 ** 32 - 1), "end of REQUEST"],
    ["lane 0", naiveMessage(130, 0, 0, 1), "lane of PLACED"],
    ["lane 3", naiveMessage(130, 3, 0, 1), "lane of PLACED"],
    ["nothing placed", naiveMessage(130, 1, 0, 0), "bytes of PLACED"],
    ["more placed than credit", naiveMessage(130, 1, 0, 16_777_217), "bytes of PLACED"],
    ["a reserved field of PLACED", naiveMessage(130, 1, 1, 1), "reserved field of PLACED"],
    ["last 2", naiveMessage(131, 2, 0, 0), "last of MISSING"],
    ["a reserved field", naiveMessage(131, 1, 0, 1), "reserved field of MISSING"],
    ["nothing, and not the last", naiveMessage(131, 0, 0, 0), "MISSING without runs"],
    ["nothing of a block", naiveMessage(131, 1, 1, 0), "block of MISSING without runs"],
    ["missing pages of block 256", naiveMessage(131, 1, 256, 65_536, 0, 1), "block of MISSING"],
    ["an empty run", naiveMessage(131, 1, 0, 65_536, 9, 0), "empty run of MISSING"],
    [
      "a run beyond 2^32",
      naiveMessage(131, 1, 0, 65_536, 2 ** 32 - 1, 2),
      "end of a run of MISSING",
    ],
    ["a page twice", naiveMessage(131, 1, 0, 131_072, 5, 2, 6, 1), "order of the runs of MISSING"],
    [
      "descending runs",
      naiveMessage(131, 1, 0, 131_072, 5, 2, 0, 1),
      "order of the runs of MISSING",
    ],
    ["fewer runs than it says", naiveMessage(131, 1, 0, 131_072, 5, 2), "length of MISSING"],
    ["more runs than it says", naiveMessage(131, 1, 0, 65_536, 5, 1, 7, 1), "length of MISSING"],
    ["4097 runs said", naiveMessage(131, 1, 0, 4097 * 65_536), "run count of MISSING"],
    ["a reserved field of SERVED", naiveMessage(132, 0, 1), "reserved field of SERVED"],
    ["a reserved field of ALL", naiveMessage(133, 1, 0), "reserved field of ALL"],
    ["something behind ALL", naiveMessage(133, 0, 0, 0), "length of ALL"],
    ["flag 2", naiveMessage(132, 2, 0), "flag of SERVED"],
    [
      "a digest that it denies",
      naiveMessage(132, 0, 0, ...Array<number>(8).fill(7)),
      "length of SERVED",
    ],
  ])("is refused for %s", (_, bytes, rule) => {
    expect(refusal(bytes)).toBe(rule);
  });

  test("names 4096 runs of missing pages at most", () => {
    const runs = Array.from({ length: 4097 }, (_, index) => ({ first: 2 * index, count: 1 }));
    const most: PageMessage = { kind: "missing", block: 0, runs: runs.slice(1), last: false };
    expect(decodePageMessage(encodePageMessage(most))).toEqual(most);
    expect(refusal(naiveEncode({ ...most, runs }))).toBe("page message too large");
  });
});

describe("encoding", () => {
  test.each<[string, PageMessage]>([
    ["REQUEST of no pages", { kind: "request", block: 0, firstPage: 0, pages: 0 }],
    ["REQUEST of 17 pages", { kind: "request", block: 0, firstPage: 0, pages: 17 }],
    ["REQUEST of block 256", { kind: "request", block: 256, firstPage: 0, pages: 1 }],
    ["PLACED of nothing", { kind: "placed", lane: "urgent", bytes: 0 }],
    ["MISSING without an end", { kind: "missing", block: 0, runs: [], last: false }],
    ["SERVED with half a digest", { kind: "served", ramDigest: "d1".repeat(16) }],
  ])("refuses a message that the receiver would refuse: %s", (_, message) => {
    expect(() => encodePageMessage(message)).toThrow(InvariantError);
  });
});

const anyRuns = fc
  .array(fc.record({ gap: fc.nat(3), count: fc.integer({ min: 1, max: 9 }) }), { maxLength: 12 })
  .map((pieces) => {
    let next = 0;
    return pieces.map(({ gap, count }) => {
      const first = next + gap;
      next = first + count;
      return { first, count };
    });
  });

const anyMessage: fc.Arbitrary<PageMessage> = fc.oneof(
  fc.record({
    kind: fc.constant("request" as const),
    block: fc.nat(255),
    firstPage: fc.nat(2 ** 32 - 16),
    pages: fc.integer({ min: 1, max: 16 }),
  }),
  fc.record({
    kind: fc.constant("placed" as const),
    lane: fc.constantFrom("urgent" as const, "background" as const),
    bytes: fc.integer({ min: 1, max: 16_777_216 }),
  }),
  fc
    .record({ block: fc.nat(255), runs: anyRuns, last: fc.boolean() })
    .map(({ block, runs, last }) =>
      runs.length === 0
        ? { kind: "missing" as const, block: 0, runs, last: true }
        : { kind: "missing" as const, block, runs, last },
    ),
  fc.constant({ kind: "all" as const }),
  fc.option(fc.uint8Array({ minLength: 32, maxLength: 32 })).map((digest) => ({
    kind: "served" as const,
    ramDigest: digest === null ? null : Buffer.from(digest).toString("hex"),
  })),
);

describe(`page messages and their naive twin (seed ${seed})`, () => {
  test("agree on every good message, both ways", () => {
    fc.assert(
      fc.property(anyMessage, (message) => {
        const bytes = encodePageMessage(message);
        expect(bytes.equals(naiveEncode(message))).toBe(true);
        expect(decodePageMessage(bytes)).toEqual(message);
        expect(naiveDecode(bytes)).toEqual(message);
      }),
      { seed, numRuns: 1000 },
    );
  });

  test("agree on which broken messages and which noise are refused", () => {
    const verdicts = { accepted: 0, refused: 0 };
    const anyBroken = fc
      .tuple(anyMessage, fc.nat(60), fc.integer({ min: 0, max: 255 }), fc.constantFrom(0, 0, 1, 8))
      .map(([message, at, value, cut]) => {
        const bytes = encodePageMessage(message);
        const broken = Buffer.from(bytes.subarray(0, bytes.length - cut));
        if (at < 12 && at < broken.length) broken[at] = value;
        return resealed(broken);
      });
    const anyNoise = fc
      .tuple(fc.constantFrom(129, 130, 131, 132), fc.uint8Array({ minLength: 3, maxLength: 60 }))
      .map(([kind, noise]) => {
        const small = noise.map((byte, index) => (index % 4 === 2 ? byte & 3 : byte & 0x81));
        return resealed(Buffer.concat([Buffer.of(0, 0, 0, 0, kind), small]));
      });
    const anyFrame = fc.nat(9).map((first) => naivePages([{ first, pages: 1, zero: true }]));
    fc.assert(
      fc.property(fc.oneof(anyBroken, anyNoise, anyFrame), (bytes) => {
        const expected = naiveDecode(bytes);
        expect(decoded(bytes)).toEqual(expected);
        verdicts[expected === null ? "refused" : "accepted"]++;
      }),
      { seed, numRuns: INPUTS },
    );
    expect(verdicts.accepted).toBeGreaterThan(INPUTS / 50);
    expect(verdicts.refused).toBeGreaterThan(INPUTS / 50);
  });
});

import { describe, expect, it } from "vitest";

import { encodeBitmapRequest, encodePostcopyResume, encodeRamDiscards } from "./command-encoder.ts";
import {
  NAIVE_ADVISE,
  NAIVE_HEADER,
  naiveCommand,
  naivePackage,
  naivePage,
  naiveRamStart,
  naiveSection,
  u32,
} from "./naive-stream.ts";
import { PreemptDecoder } from "./preempt-decoder.ts";
import type { RamBlock } from "./ram-block.ts";
import { ReturnPathDecoder } from "./return-path-decoder.ts";
import {
  encodePong,
  encodeRecvBitmap,
  encodeReqPages,
  encodeResumeAck,
  encodeShut,
} from "./return-path-encoder.ts";
import { ReturnPathError } from "./return-path-message.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { StreamError } from "./stream-error.ts";
import type { StreamHandler } from "./stream-grammar.ts";

/*
 * Damaged and random bytes into the decoders that read post-copy. They have to refuse with an error
 * of their own, or go on, and keep nothing that somebody merely claimed to be long.
 *
 * FUZZ says how many inputs each decoder gets: a million of them take some tens of seconds.
 */

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const COUNT = Number(process.env["FUZZ"] ?? 5000);
const TIMEOUT_MS = 20_000 + COUNT;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 64 * 4096 },
  { name: "pc.rom", lengthBytes: 2 * 4096 },
];
const SECTION = { sectionId: 1, blocks: BLOCKS };
const ZEROS = [
  { block: "pc.ram", page: 1, seed: null },
  { block: null, page: 2, seed: null },
  { block: "pc.rom", page: 0, seed: null },
];

type Feed = (pieces: readonly Buffer[]) => void;

const feedStream: Feed = (pieces) => {
  const decoder = new StreamDecoder(handlerOf());
  for (const piece of pieces) decoder.push(piece);
  decoder.end();
};

const feedResumed: Feed = (pieces) => {
  const decoder = new StreamDecoder(handlerOf(), {}, SECTION);
  for (const piece of pieces) decoder.push(piece);
  decoder.end();
};

const feedPreempt: Feed = (pieces) => {
  const decoder = new PreemptDecoder(BLOCKS, handlerOf());
  for (const piece of pieces) decoder.push(piece);
  decoder.end();
};

const feedReturn: Feed = (pieces) => {
  const decoder = new ReturnPathDecoder(
    (message) => {
      if (message.type === "recv-bitmap" && message.bitmap.length !== 8) {
        throw new Error("a bitmap of another size than its block's");
      }
      if (message.type !== "req-pages") return;
      const block = BLOCKS.find(({ name }) => name === message.block);
      const end = message.startBytes + message.lengthBytes;
      if (block === undefined || end > block.lengthBytes) throw new Error("a wild request");
    },
    { bitmapBytesMax: 2 ** 20, blocks: () => BLOCKS },
  );
  for (const piece of pieces) decoder.push(piece);
  decoder.end();
};

/** One page of bytes a stream: the rest is what damage can do something to. */
const KINDS: readonly (readonly [string, Feed, Buffer])[] = [
  [
    "a stream",
    feedStream,
    Buffer.concat([
      NAIVE_HEADER,
      naiveCommand(1, Buffer.alloc(0)),
      naiveCommand(2, u32(1)),
      NAIVE_ADVISE,
      naiveRamStart(1, [
        { name: "pc.ram", pageCount: 64 },
        { name: "pc.rom", pageCount: 2 },
      ]),
      naiveSection(0x02, 1, ZEROS),
      naiveCommand(11, Buffer.alloc(0)),
      encodeRamDiscards(BLOCKS[0]!, [{ firstPage: 0, pageCount: 9 }]),
      naivePackage(Buffer.from("devices")),
      naiveCommand(2, u32(4)),
      naiveSection(0x02, 1, ZEROS),
      naiveSection(0x03, 1, []),
      Buffer.of(0),
    ]),
  ],
  [
    "a stream that takes up a post-copy",
    feedResumed,
    Buffer.concat([
      ...BLOCKS.map(({ name }) => encodeBitmapRequest(name)),
      encodePostcopyResume(),
      naiveSection(0x02, 1, ZEROS),
      naiveSection(0x03, 1, ZEROS),
      Buffer.of(0),
    ]),
  ],
  ["requested pages", feedPreempt, Buffer.concat(ZEROS.map((page) => naivePage(page)))],
  [
    "a return path",
    feedReturn,
    Buffer.concat([
      encodePong(1),
      encodeReqPages({ block: "pc.ram", startBytes: 4096, lengthBytes: 4096 }),
      encodeReqPages({ startBytes: 8192, lengthBytes: 4096 }),
      encodeRecvBitmap("pc.ram", Buffer.alloc(8, 0xa5)),
      encodeResumeAck(1),
      encodeShut(0),
    ]),
  ],
];

/** Holds what is reported to what was announced. */
function handlerOf(): StreamHandler {
  let blocks: readonly RamBlock[] = BLOCKS;
  const zeroPage = (block: number, page: number): void => {
    const end = (page + 1) * 4096;
    if (page < 0 || end > blocks[block]!.lengthBytes)
      throw new Error("a page outside of its block");
  };
  return {
    page: (block, page, buffer, offset) => {
      zeroPage(block, page);
      if (offset + 4096 > buffer.length) throw new Error("a page that is not whole");
    },
    zeroPage,
    verbatim: (bytes) => {
      if (bytes.length > 70_000) throw new Error("a record that nobody could keep");
    },
    ramStart: (section) => {
      blocks = section.blocks;
    },
    partEnd: () => undefined,
    ramEnd: () => undefined,
    deviceState: () => undefined,
  };
}

function randomOf(start: number): (below: number) => number {
  let state = start >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A few bytes changed, a stretch repeated, left out or made up, the end cut off. */
function damaged(whole: Buffer, random: (below: number) => number): Buffer {
  const bytes = Buffer.from(whole);
  for (let left = random(4); left > 0; left--) {
    const at = random(bytes.length);
    bytes[at] = random(2) === 0 ? bytes[at]! ^ (1 << random(8)) : random(256);
  }
  const from = random(bytes.length);
  const to = from + random(24);
  switch (random(6)) {
    case 0:
      return Buffer.concat([bytes.subarray(0, to), bytes.subarray(from)]);
    case 1:
      return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
    case 2:
      return bytes.subarray(0, from);
    case 3: {
      const made = Buffer.from(Array.from({ length: random(24) }, () => random(256)));
      return Buffer.concat([bytes.subarray(0, from), made, bytes.subarray(from)]);
    }
    default:
      return bytes;
  }
}

function cut(bytes: Buffer, random: (below: number) => number): Buffer[] {
  const pieces: Buffer[] = [];
  const bytesMax = 1 + random(80);
  for (let at = 0; at < bytes.length;) {
    const next = at + 1 + random(bytesMax);
    pieces.push(bytes.subarray(at, next));
    at = next;
  }
  return pieces;
}

/** The code of the refusal, or null. Any other error is the decoder's own fault. */
function outcomeOf(feed: Feed, pieces: readonly Buffer[]): string | null {
  try {
    feed(pieces);
    return null;
  } catch (error) {
    if (error instanceof StreamError || error instanceof ReturnPathError) return error.code;
    throw error;
  }
}

describe(`${COUNT} inputs of damaged bytes (SEED=${seed})`, () => {
  it.each(KINDS)(
    "into %s end in a refusal or in nothing wrong",
    (name, feed, whole) => {
      expect(outcomeOf(feed, [whole])).toBe(null);
      const random = randomOf(seed);
      const outcomes = new Map<string | null, number>();
      for (let index = 0; index < COUNT; index++) {
        const bytes =
          random(50) === 0
            ? Buffer.from(Array.from({ length: random(200) }, () => random(256)))
            : damaged(whole, random);
        try {
          const outcome = outcomeOf(feed, cut(bytes, random));
          outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        } catch (cause) {
          throw new Error(`${name}, seed ${seed}, input ${bytes.toString("hex")}`, { cause });
        }
      }
      expect(outcomes.size, `seed ${seed}`).toBeGreaterThan(4);
    },
    TIMEOUT_MS,
  );
});

describe("claims of a length", () => {
  const advised = Buffer.concat([NAIVE_HEADER, NAIVE_ADVISE]);
  const announced = Buffer.concat([advised, naiveRamStart(1, [{ name: "m", pageCount: 2 ** 38 }])]);
  const bitmap = encodeRecvBitmap("pc.ram", Buffer.alloc(8)).subarray(0, 11);

  it.each([
    ["a block of 2^50 bytes", feedStream, announced],
    ["a package of 64 MiB", feedStream, Buffer.concat([announced, naiveCommand(7, u32(2 ** 26))])],
    [
      "a machine name of 4 GiB",
      feedStream,
      Buffer.concat([NAIVE_HEADER, Buffer.of(7), u32(2 ** 32 - 1)]),
    ],
    ["a command of 64 KiB", feedStream, Buffer.concat([advised, Buffer.of(8, 0, 10, 255, 255)])],
    ["a bitmap of 1 MiB", feedReturn, Buffer.concat([bitmap, u32(0), u32(2 ** 20)])],
  ])("such as %s are made no room for", (_what, feed, bytes) => {
    outcomeOf(feed, [bytes]);
    const before = process.memoryUsage().arrayBuffers;
    for (let index = 0; index < 20; index++) outcomeOf(feed, [bytes]);
    // Collected or not: what a decoder keeps of its own is some 10 KiB.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20 * 32_768);
  });
});

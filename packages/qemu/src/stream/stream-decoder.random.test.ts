import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { naiveDecode, type NaiveResult } from "./naive-decoder.ts";
import {
  NAIVE_ADVISE,
  NAIVE_EOS,
  NAIVE_HEADER,
  naiveCommand,
  naiveConfiguration,
  naiveFooter,
  naivePackage,
  naivePage,
  naiveRamStart,
  str8,
  u32,
  u64,
  type NaivePage,
} from "./naive-stream.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { StreamError } from "./stream-error.ts";
import { StreamRecorder } from "./stream-recorder.ts";

/* Random streams, whole and damaged, in random chunks: the decoder against its naive twin. */

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const BLOCKS = [
  { name: "pc.ram", pageCount: 2 ** 21 },
  { name: "pc.rom", pageCount: 2 },
  { name: "/rom@etc/table-loader", pageCount: 1 },
];
const PAGE_BYTES = 4096;

/** A run of a stream's bytes, and whether they are a page's, where damage changes no grammar. */
interface Run {
  readonly bytes: Buffer;
  readonly isPage: boolean;
}

function control(bytes: Buffer): Run {
  return { bytes, isPage: false };
}

function section(type: number, pages: readonly NaivePage[]): Run[] {
  const records = pages.flatMap((page): Run[] => {
    const bytes = naivePage(page);
    if (page.seed === null) return [control(bytes)];
    const at = bytes.length - PAGE_BYTES;
    return [control(bytes.subarray(0, at)), { bytes: bytes.subarray(at), isPage: true }];
  });
  const end = control(Buffer.concat([NAIVE_EOS, naiveFooter(1)]));
  return [control(Buffer.concat([Buffer.of(type), u32(1)])), ...records, end];
}

function discard(ranges: readonly (readonly [number, number])[]): Buffer {
  const bytes = ranges.flatMap((range) => range.map((value) => u64(BigInt(value) * 4096n)));
  return naiveCommand(6, Buffer.concat([Buffer.of(0), str8("pc.ram"), Buffer.of(0), ...bytes]));
}

const anyPage: fc.Arbitrary<NaivePage> = fc.record({
  block: fc.option(fc.constantFrom(...BLOCKS.map(({ name }) => name)), { freq: 2 }),
  page: fc.oneof({ weight: 12, arbitrary: fc.constant(0) }, fc.nat(1), fc.nat(2 ** 21)),
  seed: fc.option(fc.nat(255), { freq: 2 }),
});

const anyRuns: fc.Arbitrary<readonly Run[]> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.array(anyPage, { maxLength: 4 }).map((pages) => section(2, pages)),
  },
  fc.nat().map((value) => [control(naiveCommand(2, u32(value)))]),
  fc.constant([control(naiveCommand(11, Buffer.alloc(0)))]),
  fc
    .array(fc.tuple(fc.nat(100), fc.integer({ min: 1, max: 100 })), { maxLength: 3 })
    .map((ranges) => [control(discard(ranges))]),
  fc.uint8Array({ maxLength: 40 }).map((payload) => [control(naivePackage(payload))]),
);

const anyStream: fc.Arbitrary<readonly Run[]> = fc
  .record({
    machine: fc.option(fc.constantFrom("pc-q35-7.2", "x")),
    advised: fc.boolean(),
    runs: fc.array(anyRuns, { maxLength: 5 }),
    last: fc.array(anyPage, { maxLength: 2 }),
    devices: fc.uint8Array({ minLength: 1, maxLength: 20 }),
  })
  .map(({ machine, advised, runs, last, devices }) => [
    control(NAIVE_HEADER),
    control(machine === null ? Buffer.alloc(0) : naiveConfiguration(machine)),
    control(advised ? NAIVE_ADVISE : Buffer.alloc(0)),
    control(naiveRamStart(1, BLOCKS)),
    ...section(2, [{ block: "pc.ram", page: 7, seed: 7 }]),
    ...runs.flat(),
    ...section(3, last),
    control(hasPackage(runs.flat()) && devices.length > 5 ? Buffer.of(0) : Buffer.from(devices)),
  ]);

function hasPackage(runs: readonly Run[]): boolean {
  return runs.some(({ bytes }) => bytes[0] === 8 && bytes[2] === 7);
}

interface Cut {
  /** As a fraction of the whole. */
  readonly at: number;
  /** How many chunks of a single byte follow it. */
  readonly singles: number;
}

/** Even over the whole: `fc.double` would mostly draw numbers next to zero. */
const anyFraction = fc.nat(2 ** 24).map((value) => value / 2 ** 24);
const anyCuts: fc.Arbitrary<readonly Cut[]> = fc.array(
  fc.record({ at: anyFraction, singles: fc.nat(20) }),
  { maxLength: 8 },
);

function join(runs: readonly Run[]): Buffer {
  return Buffer.concat(runs.map(({ bytes }) => bytes));
}

function controlPlaces(runs: readonly Run[]): number[] {
  let at = 0;
  return runs.flatMap(({ bytes, isPage }) => {
    const start = at;
    at += bytes.length;
    return isPage ? [] : Array.from(bytes, (_, index) => start + index);
  });
}

function split(stream: Buffer, cuts: readonly Cut[]): Buffer[] {
  const places = cuts.flatMap(({ at, singles }) =>
    Array.from({ length: singles + 1 }, (_, index) => Math.floor(at * stream.length) + index),
  );
  const inside = [...new Set(places)].filter((at) => at > 0 && at < stream.length);
  const edges = [0, ...inside.sort((left, right) => left - right), stream.length];
  return edges.slice(1).map((end, index) => stream.subarray(edges[index], end));
}

function decode(pieces: readonly Buffer[]): NaiveResult {
  const recorder = new StreamRecorder();
  const decoder = new StreamDecoder(recorder);
  try {
    for (const piece of pieces) decoder.push(piece);
    decoder.end();
    return { events: recorder.events, error: null };
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
    return { events: recorder.events, error: error.code };
  }
}

describe("the stream decoder and its naive twin", () => {
  it("agree on random streams in random chunks", () => {
    let wholeCount = 0;
    fc.assert(
      fc.property(anyStream, anyCuts, (runs, cuts) => {
        const expected = naiveDecode(join(runs));
        if (expected.error === null) wholeCount++;
        expect(decode(split(join(runs), cuts))).toEqual(expected);
      }),
      { seed, numRuns: 300 },
    );
    expect(wholeCount, `seed ${seed}`).toBeGreaterThan(30);
  });

  it("agree on streams with a bit flipped in the control bytes, and cut short", () => {
    const refusals = new Set<string | null>();
    const anyDamage = fc.record({
      at: anyFraction,
      bit: fc.nat(7),
      kept: fc.option(anyFraction, { freq: 2 }),
    });
    fc.assert(
      fc.property(anyStream, anyCuts, anyDamage, (runs, cuts, { at, bit, kept }) => {
        const stream = join(runs);
        const places = controlPlaces(runs);
        stream[places[Math.floor(at * (places.length - 1))]!]! ^= 1 << bit;
        const shortened = stream.subarray(0, Math.ceil((kept ?? 1) * stream.length));
        const expected = naiveDecode(shortened);
        refusals.add(expected.error);
        expect(decode(split(shortened, cuts))).toEqual(expected);
      }),
      { seed, numRuns: 2000 },
    );
    // A run that met only a kind or two of refusal compared next to nothing.
    expect(refusals.size, `seed ${seed}: ${[...refusals].join()}`).toBeGreaterThan(8);
  });
});

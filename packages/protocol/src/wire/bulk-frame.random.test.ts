import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FrameEncoding, openFrame, RunTable, sealFrame } from "./bulk-frame.ts";
import {
  naiveDisk,
  naiveFrame,
  naiveMissing,
  naiveMissingPages,
  naiveOpen,
  naivePages,
  naiveWrites,
  type NaiveExtent,
  type NaiveFields,
  type NaiveRun,
} from "./naive-frame.ts";
import { ProtocolError } from "./protocol-error.ts";

/* Frames, whole and broken, against a plain twin of the codec: SEED= replays a run. */

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const BLOCK_PAGES = 300;

/** Values at and around the places where a field has an edge. */
function anyField(bits: number, ...edges: readonly number[]): fc.Arbitrary<number> {
  const max = 2 ** bits - 1;
  const near = edges.flatMap((edge) => [edge - 1, edge, edge + 1]);
  const inside = near.filter((value) => value >= 0 && value <= max);
  return fc.oneof(fc.constantFrom(...inside), fc.integer({ min: 0, max }));
}

const anyRun: fc.Arbitrary<NaiveRun> = fc.record({
  first: fc.oneof({ weight: 9, arbitrary: fc.nat(BLOCK_PAGES - 1) }, anyField(32, 2 ** 32 - 1)),
  pages: fc.nat(9),
  zero: fc.boolean(),
});

/** Runs that touch nowhere, in a random order: what a well-behaved source sends. */
const anyGoodRuns: fc.Arbitrary<NaiveRun[]> = fc
  .array(fc.record({ gap: fc.nat(3), pages: fc.integer({ min: 1, max: 4 }), zero: fc.boolean() }), {
    minLength: 1,
    maxLength: 14,
  })
  .chain((pieces) => {
    let next = 0;
    const runs = pieces.map(({ gap, pages, zero }) => {
      const first = next + gap;
      next = first + pages;
      return { first, pages, zero };
    });
    return fc.shuffledSubarray(runs, { minLength: runs.length });
  });

const anyHeader = {
  pass: anyField(32, 0, 2 ** 32 - 1),
  sequence: fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
};

const anyExtent: fc.Arbitrary<NaiveExtent> = fc.record({
  offset: fc.bigInt({ min: 0n, max: 2n ** 50n }),
  length: fc.integer({ min: 1, max: 9000 }),
  operation: fc.constantFrom(1, 2, 3),
});

const anyGoodFrame: fc.Arbitrary<Buffer> = fc.oneof(
  fc
    .record({ ...anyHeader, payload: fc.uint8Array({ maxLength: 300 }) })
    .map(({ payload, ...rest }) => naiveFrame({ ...rest, payload: Buffer.from(payload) })),
  fc.record({ ...anyHeader, kind: fc.constantFrom(3, 4) }).map((fields) => naiveFrame(fields)),
  fc
    .record({
      ...anyHeader,
      block: fc.nat(255),
      encoding: fc.constantFrom(1, 2),
      runs: anyGoodRuns,
    })
    .map(({ runs, ...fields }) => naivePages(runs, fields)),
  fc
    .record({
      sequence: anyHeader.sequence,
      block: fc.nat(23),
      encoding: fc.constantFrom(1, 2),
      extents: fc.array(anyExtent, { minLength: 1, maxLength: 9 }),
    })
    .map(({ extents, ...fields }) => naiveDisk(extents, fields)),
  fc.record({ sequence: anyHeader.sequence }).map((fields) => naiveFrame({ ...fields, kind: 6 })),
  fc
    .record({ ...anyHeader, block: fc.nat(255), runs: anyGoodRuns })
    .map(({ runs, ...fields }) => naiveMissing(runs, fields)),
  fc
    .record({ ...anyHeader, payload: fc.uint8Array({ minLength: 4, maxLength: 4 }) })
    .map(({ payload, ...rest }) => naiveFrame({ ...rest, kind: 8, payload: Buffer.from(payload) })),
);

const anyShape: fc.Arbitrary<Partial<NaiveFields>> = fc.constantFrom(
  { kind: 1, payload: Buffer.alloc(8) },
  { kind: 2, runs: 1, block: 3, payload: Buffer.alloc(8) },
  { kind: 2, runs: 2, payload: Buffer.alloc(16 + 4096) },
  { kind: 2, runs: 1, encoding: 2, payload: Buffer.alloc(8 + 100) },
  { kind: 3 },
  { kind: 4 },
  { kind: 5, runs: 1, block: 3, payload: Buffer.alloc(16) },
  { kind: 5, runs: 2, payload: Buffer.alloc(32 + 4096) },
  { kind: 5, runs: 1, encoding: 2, payload: Buffer.alloc(16 + 100) },
  { kind: 6 },
  { kind: 7, runs: 2, block: 3, payload: Buffer.alloc(16) },
  { kind: 8, payload: Buffer.alloc(4) },
);

const breakers: readonly fc.Arbitrary<Partial<NaiveFields>>[] = [
  anyField(8, 2).map((version) => ({ version })),
  anyField(8, 1, 8).map((kind) => ({ kind })),
  anyField(8, 1, 2).map((encoding) => ({ encoding })),
  anyField(8, 0).map((reserved7) => ({ reserved7 })),
  anyField(32, 0, 8, 4112).map((payloadBytes) => ({ payloadBytes })),
  fc.bigInt({ min: 2n ** 53n - 2n, max: 2n ** 53n + 2n }).map((sequence) => ({ sequence })),
  anyField(32, 0).map((pass) => ({ pass })),
  anyField(16, 0, 23, 255).map((block) => ({ block })),
  anyField(16, 0, 1, 2, 128, 256).map((runs) => ({ runs })),
  anyField(32, 0).map((reserved28) => ({ reserved28 })),
  fc
    .constantFrom(0, 1, 4, 8, 16, 24, 32, 4104, 4112, 4128)
    .map((bytes) => ({ payload: Buffer.alloc(bytes) })),
];

/** A good frame with a field or two that are not what the rest of it says; its checksum is right. */
const anyBrokenFields: fc.Arbitrary<Partial<NaiveFields>> = fc
  .tuple(anyShape, fc.oneof(...breakers), fc.oneof(fc.constant({}), ...breakers))
  .map(([shape, one, other]) => ({ ...shape, ...one, ...other }));

function opened(frame: Buffer): ReturnType<typeof openFrame> | null {
  try {
    return openFrame(frame);
  } catch (error) {
    if (error instanceof ProtocolError) return null;
    throw error;
  }
}

/** What the dest would do with the frame: every page that it writes, with the fill of its data. */
function writes(frame: Buffer, blockPages: number): ReturnType<typeof naiveWrites> {
  const header = openFrame(frame);
  const table = new RunTable();
  try {
    table.open(frame, header, blockPages);
  } catch (error) {
    if (error instanceof ProtocolError) return null;
    throw error;
  }
  let dataAt = table.dataOffset;
  return Array.from({ length: table.count }, (_, run) =>
    Array.from({ length: table.pages(run) }, (_, index) => {
      const zero = table.zero(run);
      const hasFill = !zero && header.encoding === FrameEncoding.RAW;
      const write = { page: table.first(run) + index, fill: hasFill ? frame[dataAt]! : null };
      if (!zero) dataAt += 4096;
      return write;
    }),
  ).flat();
}

describe(`bulk frames and their naive twin (seed ${seed})`, () => {
  test("agree on every good frame, both ways", () => {
    fc.assert(
      fc.property(anyGoodFrame, (frame) => {
        const header = openFrame(frame);
        expect(header).toEqual(naiveOpen(frame));
        const again = Buffer.alloc(frame.length, 0x5a);
        frame.copy(again, 32, 32);
        sealFrame(again, header);
        expect(again.equals(frame)).toBe(true);
      }),
      { seed, numRuns: 500 },
    );
  });

  test("agree on which frames with broken fields are refused", () => {
    let refusedCount = 0;
    let acceptedCount = 0;
    fc.assert(
      fc.property(anyBrokenFields, (fields) => {
        const frame = naiveFrame(fields);
        const expected = naiveOpen(frame);
        if (expected === null) refusedCount++;
        else acceptedCount++;
        expect(opened(frame)).toEqual(expected);
      }),
      { seed, numRuns: 2000 },
    );
    expect(refusedCount).toBeGreaterThan(500);
    expect(acceptedCount).toBeGreaterThan(100);
  });

  test("agree on which run tables are refused, and none writes outside its block or a page twice", () => {
    const verdicts = { accepted: 0, refused: 0 };
    const anyRuns = fc.oneof(
      anyGoodRuns,
      fc.array(anyRun, { minLength: 1, maxLength: 6 }),
      fc.tuple(anyGoodRuns, anyRun).map(([runs, more]) => [...runs, more]),
    );
    fc.assert(
      fc.property(anyRuns, fc.integer({ min: 1, max: BLOCK_PAGES }), (runs, blockPages) => {
        const frame = naivePages(runs, { encoding: 1 + (blockPages % 2) });
        const written = writes(frame, blockPages);
        expect(written).toEqual(naiveWrites(frame, blockPages));
        verdicts[written === null ? "refused" : "accepted"]++;
        if (written === null) return;
        const pages = written.map(({ page }) => page);
        expect(Math.max(...pages)).toBeLessThan(blockPages);
        expect(new Set(pages).size).toBe(pages.length);
      }),
      { seed, numRuns: 600 },
    );
    expect(verdicts.accepted).toBeGreaterThan(100);
    expect(verdicts.refused).toBeGreaterThan(100);
  });

  test("agree on which lists of missing pages are refused", () => {
    const verdicts = { accepted: 0, refused: 0 };
    const anyRuns = fc.oneof(
      anyGoodRuns.map((runs) => runs.map((run) => ({ ...run, zero: false }))),
      fc.array(anyRun, { minLength: 1, maxLength: 6 }),
    );
    fc.assert(
      fc.property(anyRuns, fc.integer({ min: 1, max: BLOCK_PAGES }), (runs, blockPages) => {
        const frame = naiveMissing(runs);
        const named = writes(frame, blockPages)?.map(({ page }) => page) ?? null;
        expect(named).toEqual(naiveMissingPages(frame, blockPages));
        verdicts[named === null ? "refused" : "accepted"]++;
      }),
      { seed, numRuns: 600 },
    );
    expect(verdicts.accepted).toBeGreaterThan(50);
    expect(verdicts.refused).toBeGreaterThan(50);
  });

  test("agree that random bytes with a right checksum and length are hardly ever a frame", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 80 }), (noise) => {
        const bytes = Buffer.from(noise);
        const fields = {
          version: 2,
          encoding: 1 + (bytes[6]! & 1),
          kind: bytes[5]! & 15,
          pass: bytes.readUInt32BE(8),
          block: bytes[24]! * (bytes[25]! & 1),
          runs: bytes[26]! & 3,
          payload: bytes.subarray(32),
        };
        const frame = naiveFrame(fields);
        const expected = naiveOpen(frame);
        expect(opened(frame)).toEqual(expected);
        if (expected?.kind === 2) expect(writes(frame, 300)).toEqual(naiveWrites(frame, 300));
      }),
      { seed, numRuns: 2000 },
    );
  });
});

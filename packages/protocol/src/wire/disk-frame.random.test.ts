import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ruleOf } from "./broken-rule.ts";
import { FrameKind, openFrame, sealFrame } from "./bulk-frame.ts";
import { DiskOperation, ExtentTable, putExtent, type DiskExtent } from "./disk-frame.ts";
import { naiveExtent, naiveExtents, naiveFrame, type NaiveExtent } from "./naive-frame.ts";

/* Extent tables, good and broken, against a plain twin of the codec: SEED= replays a run. */

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const { DATA, ZERO, TRIM } = DiskOperation;

function extentsOf(table: ExtentTable): DiskExtent[] {
  return Array.from({ length: table.count }, (_, index) => table.extent(index));
}

describe(`random tables and their naive twin (seed ${seed})`, () => {
  const SMALL_DISK = 5000;
  /** Most of them good, some of them over an edge. */
  const anyExtent: fc.Arbitrary<NaiveExtent> = fc.record({
    offset: fc.oneof(
      { weight: 40, arbitrary: fc.bigInt({ min: 0n, max: 4000n }) },
      fc.bigInt({ min: 4000n, max: 5001n }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    ),
    length: fc.oneof(
      { weight: 40, arbitrary: fc.integer({ min: 1, max: 300 }) },
      fc.constantFrom(0, 5000, 2 ** 30, 2 ** 30 + 1, 2 ** 32 - 1),
    ),
    operation: fc.oneof({ weight: 40, arbitrary: fc.constantFrom(1, 2, 3) }, fc.nat(255)),
    reserved: fc.oneof({ weight: 60, arbitrary: fc.constant(0) }, fc.nat(2 ** 24 - 1)),
  });

  test("agree on which are refused, what they say, and whether they overlap", () => {
    const verdicts = { refused: 0, disjoint: 0, overlapping: 0 };
    const table = new ExtentTable();
    const property = fc.property(
      fc.array(anyExtent, { minLength: 1, maxLength: 8 }),
      fc.constantFrom(1, 1, 2),
      // What the frame has beyond the data of its extents, or lacks.
      fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, fc.integer({ min: -20, max: 20 })),
      (extents, encoding, more) => {
        const data = extents.map(({ operation, length }, index) =>
          Buffer.alloc(operation === 1 && length <= 5000 ? length : 0, index + 1),
        );
        const plain = Buffer.concat([...extents.map(naiveExtent), ...data]);
        const payload =
          more < 0
            ? plain.subarray(0, Math.max(extents.length * 16, plain.length + more))
            : Buffer.concat([plain, Buffer.alloc(more)]);
        const frame = naiveFrame({ kind: 5, encoding, runs: extents.length, payload });
        const expected = naiveExtents(frame, SMALL_DISK);
        const rule = ruleOf(() => {
          table.open(frame, openFrame(frame), SMALL_DISK);
        });
        expect(rule === "accepted").toBe(expected !== null);
        if (expected === null) {
          verdicts.refused++;
          return;
        }
        verdicts[expected.disjoint ? "disjoint" : "overlapping"]++;
        const { dataBytes, disjoint } = table;
        const fills = encoding === 1 ? fillsOf(table, frame) : [];
        expect({ extents: extentsOf(table), fills, dataBytes, disjoint }).toEqual(expected);
      },
    );
    fc.assert(property, { seed, numRuns: 2000 });
    for (const count of Object.values(verdicts)) expect(count).toBeGreaterThan(100);
  });

  /** First byte of each DATA extent's data, found as a dest finds it. */
  function fillsOf(table: ExtentTable, frame: Buffer): number[] {
    let at = table.dataOffset;
    return extentsOf(table).flatMap(({ operation, length }) => {
      if (operation !== DATA) return [];
      const fill = frame[at]!;
      at += length;
      return [fill];
    });
  }

  test("come back as they were put", () => {
    const anyPut: fc.Arbitrary<DiskExtent> = fc.record({
      operation: fc.constantFrom(DATA, ZERO, TRIM),
      offset: fc.maxSafeNat().map((offset) => offset % (2 ** 50 - 2048)),
      length: fc.integer({ min: 1, max: 2048 }),
    });
    const property = fc.property(
      fc.array(anyPut, { minLength: 1, maxLength: 128 }),
      fc.nat(23),
      (extents, block) => {
        const lengths = extents.map(({ operation, length }) => (operation === DATA ? length : 0));
        const dataBytes = lengths.reduce((sum, length) => sum + length, 0);
        const frame = Buffer.alloc(32 + 16 * extents.length + dataBytes);
        for (const [index, each] of extents.entries()) {
          putExtent(frame, { frameStart: 0, index }, each);
        }
        const header = { kind: FrameKind.DISK, encoding: 1, pass: 0, sequence: 0 } as const;
        sealFrame(frame, { ...header, block, runs: extents.length });
        const table = new ExtentTable();
        table.open(frame, openFrame(frame), 2 ** 50);
        expect(extentsOf(table)).toEqual(extents);
      },
    );
    fc.assert(property, { seed, numRuns: 100 });
  });
});

import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { CreditLedger } from "./credit-ledger.ts";

const PIECE_BYTES = 512 * 1024;
const CREDIT_BYTES = 4 * PIECE_BYTES;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

let returned: number[];
let ledger: CreditLedger;

beforeEach(() => {
  returned = [];
  ledger = new CreditLedger(CREDIT_BYTES, (bytes) => returned.push(bytes));
});

describe("credit", () => {
  test("goes back at once when nothing else is under way", () => {
    ledger.owe(100);
    expect(returned).toEqual([]);
    ledger.done(100);
    ledger.owe(1);
    ledger.done(1);
    expect(returned).toEqual([100, 1]);
  });

  test("waits while more is under way, and goes back in pieces of 512 KiB", () => {
    for (let i = 0; i < 9; i++) ledger.owe(100_000);
    for (let i = 0; i < 5; i++) ledger.done(100_000);
    expect(returned).toEqual([]);
    ledger.done(100_000);
    expect(returned).toEqual([600_000]);
    ledger.done(100_000);
    ledger.done(100_000);
    expect(returned).toEqual([600_000]);
    ledger.done(100_000);
    expect(returned).toEqual([600_000, 300_000]);
  });

  test("of exactly 512 KiB is a piece", () => {
    ledger.owe(PIECE_BYTES);
    ledger.owe(1);
    ledger.done(PIECE_BYTES - 1);
    expect(returned).toEqual([]);
    ledger.done(1);
    expect(returned).toEqual([PIECE_BYTES]);
  });

  test("may be used up to the last byte, and not beyond", () => {
    ledger.owe(CREDIT_BYTES - 1);
    ledger.owe(1);
    expect(() => {
      ledger.owe(1);
    }).toThrow(
      expect.objectContaining({ detail: { code: "protocol-violation", rule: "credit exceeded" } }),
    );
  });

  test("that was earned but not given back yet is not there to be used", () => {
    ledger.owe(CREDIT_BYTES);
    ledger.done(PIECE_BYTES - 1);
    expect(() => {
      ledger.owe(1);
    }).toThrow("credit exceeded");
  });

  test("can be used again when it was given back", () => {
    ledger.owe(CREDIT_BYTES);
    ledger.done(PIECE_BYTES);
    ledger.owe(PIECE_BYTES);
    expect(() => {
      ledger.owe(1);
    }).toThrow("credit exceeded");
  });

  test(`is in total what arrived, whichever frames are done first (SEED=${seed})`, () => {
    const frame = fc.record({
      bytes: fc.integer({ min: 1, max: 264_224 }),
      /** How many of those under way are done before the next one comes, and which. */
      done: fc.array(fc.nat(1000), { maxLength: 5 }),
    });
    const property = fc.property(fc.array(frame, { maxLength: 100 }), (frames) => {
      const back: number[] = [];
      const each = new CreditLedger(CREDIT_BYTES, (bytes) => back.push(bytes));
      const returnedBytes = (): number => back.reduce((sum, bytes) => sum + bytes, 0);
      const underWay: number[] = [];
      let arrivedBytes = 0;
      const finish = (index: number): void => {
        each.done(underWay.splice(index, 1)[0]!);
        const unfinishedBytes = underWay.reduce((sum, bytes) => sum + bytes, 0);
        const heldBackBytes = arrivedBytes - unfinishedBytes - returnedBytes();
        expect(heldBackBytes).toBeGreaterThanOrEqual(0);
        expect(heldBackBytes).toBeLessThan(PIECE_BYTES);
      };
      for (const { bytes, done } of frames) {
        // A source that keeps to its credit.
        while (arrivedBytes + bytes - returnedBytes() > CREDIT_BYTES) finish(0);
        each.owe(bytes);
        underWay.push(bytes);
        arrivedBytes += bytes;
        for (const index of done) if (underWay.length > 0) finish(index % underWay.length);
      }
      while (underWay.length > 0) finish(underWay.length - 1);
      expect(returnedBytes()).toBe(arrivedBytes);
      expect(back.every((bytes) => bytes > 0)).toBe(true);
    });
    fc.assert(property, { seed, numRuns: 100 });
  });
});

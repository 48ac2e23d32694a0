import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TokenBucket } from "./token-bucket.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const BURST_SECONDS = 0.05;

describe("a bandwidth limit", () => {
  test("that is null never makes anybody wait", () => {
    const bucket = new TokenBucket(null, 0);
    bucket.spend(1e15, 0);
    expect(bucket.waitMs(0)).toBe(0);
  });

  test("lets the first bytes go at once and then asks for the time they cost", () => {
    const bucket = new TokenBucket(1_000_000, 100);
    expect(bucket.waitMs(100)).toBe(0);
    bucket.spend(250_000, 100);
    expect(bucket.waitMs(100)).toBe(250);
    expect(bucket.waitMs(225.5)).toBe(125);
    expect(bucket.waitMs(350)).toBe(0);
  });

  test("is what everybody waits for until half of the silence that it saves up is there", () => {
    const bucket = new TokenBucket(1_000_000, 0);
    expect(bucket.isShort(0)).toBe(true);
    expect([bucket.isShort(24), bucket.isShort(25)]).toEqual([true, false]);
    bucket.spend(1, 25);
    expect(bucket.isShort(25)).toBe(true);
    expect(new TokenBucket(null, 0).isShort(0)).toBe(false);
  });

  test("saves up no more than 50 ms of silence", () => {
    const bucket = new TokenBucket(1_000_000, 0);
    bucket.spend(0, 3_600_000);
    bucket.spend(150_000, 3_600_000);
    expect(bucket.waitMs(3_600_000)).toBe(100);
  });

  test("keeps what was overspent when it changes", () => {
    const bucket = new TokenBucket(1_000_000, 0);
    bucket.spend(500_000, 0);
    bucket.setLimit(2_000_000, 0);
    expect(bucket.waitMs(0)).toBe(250);
    bucket.setLimit(null, 0);
    expect(bucket.waitMs(0)).toBe(0);
  });

  test("takes nothing saved up under the old limit along", () => {
    const bucket = new TokenBucket(1_000_000_000, 0);
    bucket.setLimit(1000, 1000);
    bucket.spend(1000, 1000);
    expect(bucket.waitMs(1000)).toBe(1000);
  });

  test("counts nothing that was spent without a limit", () => {
    const bucket = new TokenBucket(null, 0);
    bucket.spend(1e12, 0);
    bucket.setLimit(1000, 1);
    expect(bucket.waitMs(1)).toBe(0);
  });

  test(`is kept in the long run, whatever the sizes and the steps of time (SEED=${seed})`, () => {
    const property = fc.property(
      fc.integer({ min: 4096, max: 10_000_000_000 }),
      fc.array(
        fc.record({
          bytes: fc.integer({ min: 1, max: 300_000 }),
          lateMs: fc.double({ min: 0, max: 200, noNaN: true }),
        }),
        { minLength: 50, maxLength: 200 },
      ),
      (bytesPerSecond, sends) => {
        const bucket = new TokenBucket(bytesPerSecond, 0);
        let nowMs = 0;
        let sentBytes = 0;
        for (const { bytes, lateMs } of sends) {
          const waitMs = bucket.waitMs(nowMs);
          // Whoever waits as long as it says is let go, but for a rounding of the clock.
          nowMs += waitMs + (waitMs > 0 ? 0 : lateMs);
          expect(bucket.waitMs(nowMs)).toBeLessThanOrEqual(1);
          nowMs += bucket.waitMs(nowMs);
          // What is sent from now on is beyond the limit by the burst at most.
          const allowed = bytesPerSecond * (nowMs / 1000 + BURST_SECONDS);
          expect(sentBytes).toBeLessThanOrEqual(allowed + 1);
          bucket.spend(bytes, nowMs);
          sentBytes += bytes;
        }
      },
    );
    fc.assert(property, { seed, numRuns: 200 });
  });

  test("is reached by a sender that always has something to send", () => {
    const bucket = new TokenBucket(10_000_000, 0);
    let nowMs = 0;
    let sentBytes = 0;
    while (nowMs < 10_000) {
      bucket.spend(262_144, nowMs);
      sentBytes += 262_144;
      nowMs += bucket.waitMs(nowMs);
    }
    expect(sentBytes / (nowMs / 1000)).toBeGreaterThan(9_500_000);
    expect(sentBytes / (nowMs / 1000)).toBeLessThanOrEqual(10_000_000);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { runLazyDisk, type LazyDiskPlan } from "./lazy-disk-run.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env["RUNS"] ?? 150);

const share = (max: number): fc.Arbitrary<number> =>
  fc.integer({ min: 0, max: max * 1000 }).map((each) => each / 1000);

const anyPlan: fc.Arbitrary<LazyDiskPlan> = fc.record({
  salt: fc.nat(),
  unitBytes: fc.constantFrom(4096, 8192, 16_384),
  sectors: fc.integer({ min: 40, max: 600 }),
  requests: fc.integer({ min: 1, max: 150 }),
  kills: share(0.1),
  crashes: share(0.1),
  full: share(0.05),
  cuts: share(0.05),
  unreadable: share(0.1),
  hurryPull: fc.boolean(),
});

describe("a lazy disk", () => {
  it("loses no acknowledged write and shows no block that is not its own, whatever dies", async () => {
    let crashes = 0;
    let lives = 0;
    const property = fc.asyncProperty(anyPlan, async (plan) => {
      const outcome = await runLazyDisk(plan);
      crashes += outcome.crashes;
      lives += outcome.lives;
      expect(outcome.equal).toBe(true);
    });
    await fc.assert(property, { seed, numRuns });
    // Or it would have shown nothing.
    expect(crashes).toBeGreaterThan(numRuns);
    expect(lives - crashes).toBeGreaterThan(numRuns);
  }, 120_000);
});

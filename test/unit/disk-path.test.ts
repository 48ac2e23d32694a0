/**
 * Whatever the order of guest writes, copies, rounds and failures, both images and both digests are
 * equal at the end, and the guest finds on its disk what it wrote.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DiskPathRun, type DiskPathPlan } from "./disk-path-run.ts";
import type { GuestRequest } from "./guest-of-disk.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const numRuns = Number(process.env["RUNS"] ?? 100);
const KIB = 1024;
const SECTOR_BYTES = 512;

/** Small ones have many blocks; a copy takes 256 KiB at once, so each has a few steps a round. */
const GEOMETRIES = [
  { sizeBytes: 600 * KIB, unitBytes: 4 * KIB, blockBytes: 8 * KIB },
  { sizeBytes: 600 * KIB + SECTOR_BYTES, unitBytes: 16 * KIB, blockBytes: 64 * KIB },
  { sizeBytes: 900 * KIB - SECTOR_BYTES, unitBytes: 64 * KIB, blockBytes: 256 * KIB },
  { sizeBytes: 300 * KIB, unitBytes: 64 * KIB, blockBytes: 64 * KIB },
] as const;

describe("the disk path", () => {
  for (const writes of ["mirror", "iterate"] as const) {
    for (const tracker of ["bitmap", "bloom", "wrong-at-times"] as const) {
      it(`makes both disks equal with ${tracker} and ${writes} (SEED=${seed})`, async () => {
        const plans = fc.constantFrom(...GEOMETRIES).chain((geometry) =>
          fc.record({
            ...record(geometry.sizeBytes),
            sizeBytes: fc.constant(geometry.sizeBytes),
            unitBytes: fc.constant(geometry.unitBytes),
            blockBytes: fc.constant(geometry.blockBytes),
            writes: fc.constant(writes),
            tracker: fc.constant(tracker),
          }),
        );
        await fc.assert(fc.asyncProperty(plans, endsWithEqualDisks), {
          seed,
          numRuns,
          // What was found is told in its best form so far, rather than lost with the test.
          interruptAfterTimeLimit: numRuns * 150,
        });
      });
    }
  }
});

async function endsWithEqualDisks(plan: DiskPathPlan): Promise<void> {
  const run = new DiskPathRun(plan);
  try {
    await run.finish();
    expect(run.firstWrong).toBe(null);
    expect(run.dest.content.compare(run.source.content)).toBe(0);
    expect(run.destDigest).toBe(run.sourceDigest);
    expect(run.unacknowledgedFrames).toBe(0);
  } finally {
    run.stop();
  }
}

function record(sizeBytes: number): {
  [
    K in Exclude<
      keyof DiskPathPlan,
      "sizeBytes" | "unitBytes" | "blockBytes" | "writes" | "tracker"
    >
  ]: fc.Arbitrary<DiskPathPlan[K]>;
} {
  return {
    salt: fc.nat(2 ** 31),
    requests: fc.array(anyRequest(sizeBytes), { maxLength: 40, size: "max" }),
    failureShare: fc.constantFrom(0, 0, 0.15),
    framesMax: fc.constantFrom(0, 2, 1000),
    destIsUsed: fc.boolean(),
    heldMax: fc.constantFrom(0, 2, 8),
    spooled: fc.constantFrom(false, false, true),
  };
}

function anyRequest(sizeBytes: number): fc.Arbitrary<GuestRequest> {
  const kind = fc.constantFrom<GuestRequest["kind"]>(
    ...(["write", "write", "write", "write", "zero", "punch", "trim", "flush", "read"] as const),
  );
  const within = ([name, offset, length]: [
    GuestRequest["kind"],
    number,
    number,
  ]): GuestRequest => ({
    kind: name,
    offset,
    length: Math.min(length, sizeBytes - offset),
  });
  const sectors = fc.integer({ min: 1, max: 40 }).map((count) => count * SECTOR_BYTES);
  const sector = fc.nat(sizeBytes / SECTOR_BYTES - 1).map((index) => index * SECTOR_BYTES);
  return fc.oneof(
    fc.tuple(kind, fc.nat(sizeBytes - 1), fc.integer({ min: 1, max: 200 * KIB })).map(within),
    fc.tuple(kind, sector, sectors).map(within),
    // A few places that are written again and again.
    {
      weight: 2,
      arbitrary: fc
        .tuple(kind, fc.constantFrom(0, 4096, 250 * KIB, 64 * KIB - 512), sectors)
        .map(within),
    },
    fc.tuple(kind, fc.constantFrom(0, 64 * KIB), fc.constantFrom(64 * KIB, 256 * KIB)).map(within),
  );
}

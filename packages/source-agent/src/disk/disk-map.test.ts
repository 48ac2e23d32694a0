import { expect, it } from "vitest";
import { mapOfDisk } from "./disk-map.ts";
import { BLOCK_BYTES, MirroredBench } from "./mirrored-bench.ts";

function mapOf({ disk, hashes, clock }: MirroredBench): string {
  const moving = { id: "disk0", blockBytes: BLOCK_BYTES, disk, hashes };
  const { id, totalBytes, cells } = mapOfDisk(moving, { cells: 64, nowMs: clock.nowMs() });
  expect([id, totalBytes]).toEqual(["disk0", disk.sizeBytes]);
  return cells;
}

it("shows what the cursor has yet to come to, what was sent, and what of it is zero", async () => {
  const bench = new MirroredBench();
  bench.image.content.fill(7, 0, BLOCK_BYTES);
  expect(mapOf(bench)).toBe("wwwwww");
  await bench.disk.copyNext();
  expect(mapOf(bench)).toBe("szzzww");
  await bench.copyRound();
  expect(mapOf(bench)).toBe("szzzzz");
});

it("shows a block as dirty from the write that marks it to its copy in the next round", async () => {
  const bench = await MirroredBench.copied({ writes: "iterate" });
  await bench.disk.write(BLOCK_BYTES, Buffer.alloc(4096, 1));
  expect(mapOf(bench)).toBe("zdzzzz");
  bench.disk.plan.startRound();
  expect(mapOf(bench)).toBe("zdzzzz");
  await bench.copyRound();
  expect(mapOf(bench)).toBe("zszzzz");
});

it("shows a block that is written again and again as hot, and as held where it may be held", async () => {
  const bench = await MirroredBench.copied();
  const write = (): Promise<void> => bench.disk.write(0, Buffer.alloc(BLOCK_BYTES, 1));
  await write();
  await write();
  expect(mapOf(bench)).toBe("hzzzzz");
  bench.disk.plan.setHeldMax(1, bench.clock.nowMs());
  await write();
  expect(mapOf(bench)).toBe("kzzzzz");
});

import { describe, expect, test, vi } from "vitest";
import { BLOCK_BYTES, settle, TransferBench } from "./transfer-bench.ts";

const TICK_MS = 200;
/** With a megabyte a second and 300 ms: 240 ms, of which three tenths are for the rest of disks. */
const REST_BLOCKS = 72;

function mark(bench: TransferBench, count: number, disk = 0): void {
  const { plan } = bench.disks[disk]!;
  for (let block = 0; block < count; block++) plan.mark(block);
}

/** Has been copied, with `follow` under way. */
async function followed(bench: TransferBench): Promise<TransferBench> {
  await bench.transfer.copy();
  bench.log.length = 0;
  return bench;
}

describe("the copy", () => {
  test("is through with the first round when nothing was marked, although no rate is known", async () => {
    const bench = new TransferBench([5]);
    await bench.transfer.copy();
    expect(bench.log).toEqual(["d0:0", "d0:1", "d0:2", "d0:3", "d0:4"]);
    expect([bench.roundsOver, bench.transfer.restBytes, bench.failures]).toEqual([1, 0, []]);
    bench.transfer.stop();
  });

  test("has rounds until what is left fits the downtime budget", async () => {
    const bench = new TransferBench([200]);
    bench.bytesPerSecond = 1e6;
    bench.disks[0]!.automatic = false;
    const through = vi.fn();
    void bench.transfer.copy().then(through);
    for (const marked of [150, REST_BLOCKS + 1, REST_BLOCKS]) {
      expect(through).not.toHaveBeenCalled();
      while (bench.disks[0]!.plan.roundBlocks > 0) {
        for (const copy of bench.disks[0]!.copies) copy.resolve();
        await settle();
      }
      // Before the last copies of the round are there.
      mark(bench, marked);
      for (const copy of bench.disks[0]!.copies) copy.resolve();
      await settle();
    }
    expect(through).toHaveBeenCalled();
    expect([bench.disks[0]!.plan.round, bench.roundsOver]).toEqual([3, 3]);
    expect(bench.transfer.restBytes).toBe(REST_BLOCKS * BLOCK_BYTES);
    bench.transfer.stop();
  });

  test("counts what is held as left", async () => {
    const bench = new TransferBench([200]);
    const { plan } = bench.disks[0]!;
    plan.next(200);
    plan.setHeldMax(5, 0);
    plan.written(3, 1, 0);
    plan.startRound();
    plan.next(1);
    plan.written(3, 1, 0);
    expect([plan.heldBlocks, bench.transfer.restBytes]).toEqual([1, BLOCK_BYTES]);
    await bench.transfer.copy();
    bench.transfer.stop();
  });

  test("gives disks their turns, and all of the link to the last that is left", async () => {
    const bench = new TransferBench([6, 2]);
    await bench.transfer.copy();
    expect(bench.log.slice(0, 4)).toEqual(["d0:0", "d1:0", "d0:1", "d1:1"]);
    expect(bench.log.slice(4)).toEqual(["d0:2", "d0:3", "d0:4", "d0:5"]);
    bench.transfer.stop();
  });

  test("begins a round when that of every disk is over", async () => {
    const bench = new TransferBench([2, 50]);
    bench.disks[1]!.automatic = false;
    void bench.transfer.copy();
    await settle();
    mark(bench, 1);
    bench.clock.advance(TICK_MS);
    await settle();
    expect([bench.disks[0]!.plan.round, bench.roundsOver]).toEqual([1, 0]);
    while (bench.roundsOver === 0) {
      for (const copy of bench.disks[1]!.copies) copy.resolve();
      await settle();
    }
    expect(bench.disks.map(({ plan }) => plan.round)).toEqual([2, 1]);
    bench.transfer.stop();
  });

  test("has three copies under way at most, all disks together", async () => {
    const bench = new TransferBench([9, 9]);
    for (const disk of bench.disks) disk.automatic = false;
    void bench.transfer.copy().catch(() => undefined);
    await settle();
    bench.transfer.fill();
    expect(bench.copiesUnderWay).toBe(3);
    bench.disks[0]!.copies[0]!.resolve();
    await settle();
    expect([bench.copiesUnderWay, bench.log.length]).toEqual([3, 4]);
    bench.transfer.stop();
  });

  test("waits while the link takes no more, and goes on when it is asked to fill it", async () => {
    const bench = new TransferBench([5]);
    bench.ready = false;
    const through = vi.fn();
    void bench.transfer.copy().then(through);
    bench.clock.advance(5 * TICK_MS);
    await settle();
    expect(bench.log).toEqual([]);
    bench.ready = true;
    bench.transfer.fill();
    await settle();
    expect(through).toHaveBeenCalled();
    bench.transfer.stop();
  });

  test("is not through before a disk is filled that is filled from elsewhere", async () => {
    const bench = new TransferBench([5]);
    bench.disks[0]!.isFilled = false;
    const through = vi.fn();
    void bench.transfer.copy().then(through);
    bench.clock.advance(2 * TICK_MS);
    await settle();
    mark(bench, 2);
    bench.clock.advance(TICK_MS);
    await settle();
    expect([through.mock.calls.length, bench.log.slice(5)]).toEqual([0, ["d0:0", "d0:1"]]);
    bench.disks[0]!.isFilled = true;
    bench.clock.advance(TICK_MS);
    await settle();
    expect(through).toHaveBeenCalled();
    bench.transfer.stop();
  });
});

describe("a guest that writes as fast as its disks travel", () => {
  /** A minute in which all that was copied is marked again. */
  async function stalled(onStall: "throttle" | "cancel" | "stun"): Promise<{
    readonly bench: TransferBench;
    readonly through: () => void;
  }> {
    const bench = new TransferBench([5], onStall);
    const through = vi.fn();
    bench.transfer.copy().then(through, () => undefined);
    bench.disks[0]!.automatic = false;
    for (let step = 0; step < 40; step++) {
      bench.clock.advance(1500);
      mark(bench, 5);
      for (const copy of bench.disks[0]!.copies) copy.resolve();
      await settle();
    }
    return { bench, through };
  }

  test("ends the migration where it is to be cancelled then", async () => {
    const { bench, through } = await stalled("cancel");
    expect(bench.failures).toEqual([expect.objectContaining({ code: "not-converging" })]);
    expect(through).not.toHaveBeenCalled();
    expect(bench.warnings).toEqual([]);
    bench.transfer.stop();
  });

  test("is stunned all the same where that was asked for", async () => {
    const { bench, through } = await stalled("stun");
    expect(through).toHaveBeenCalled();
    expect([bench.warnings, bench.failures]).toEqual([["not-converging"], []]);
    bench.transfer.stop();
  });

  test("waits for the link with its writes where it is to be throttled", async () => {
    const { bench } = await stalled("throttle");
    const [disk] = bench.disks;
    expect([bench.warnings, bench.failures]).toEqual([["not-converging"], []]);
    // Writes that are left for a later round would not wait.
    expect([disk!.throttle, disk!.plan.writes]).toEqual([true, "mirror"]);
    bench.transfer.stop();
    expect(disk!.throttle).toBe(false);
    bench.transfer.throttle();
    expect(disk!.throttle).toBe(false);
  });
});

describe("an image that cannot be read", () => {
  test("fails the migration by the name of its disk, once, and everything stops", async () => {
    const bench = new TransferBench([9, 9]);
    for (const disk of bench.disks) disk.automatic = false;
    const copied = bench.transfer.copy();
    copied.catch(() => undefined);
    await settle();
    const copies = bench.disks.flatMap((disk) => disk.copies);
    bench.disks[1]!.copies[0]!.reject(new Error("bad sector"));
    await settle();
    for (const copy of copies) copy.reject(new Error("bad sector again"));
    await settle();
    expect(bench.failures).toHaveLength(1);
    expect(bench.failures[0]).toMatchObject({ code: "source-disk-failed" });
    expect(String(bench.failures[0])).toContain("reading disk d1 failed: bad sector");
    expect([bench.log.slice(3), bench.clock.timerCount]).toEqual([["d0:stop", "d1:stop"], 0]);
    await expect(copied).rejects.toMatchObject({ code: "cancelled" });
  });

  test("fails the migration also when only hashes are left to be made", async () => {
    const bench = await followed(new TransferBench([3]));
    bench.disks[0]!.settleFailure = new Error("bad sector");
    await expect(bench.transfer.finish()).rejects.toMatchObject({
      code: "source-disk-failed",
      message: "reading disk d0 failed: bad sector",
    });
  });

  test("is but a line in the log when a hash was to be made early", async () => {
    const bench = await followed(new TransferBench([3]));
    bench.disks[0]!.settleFailure = new Error("bad sector");
    bench.clock.advance(TICK_MS);
    await settle();
    expect([bench.log, bench.failures]).toEqual([["logged"], []]);
    bench.transfer.stop();
  });
});

describe("while memory travels", () => {
  test("what was marked is copied now and then", async () => {
    const bench = await followed(new TransferBench([5]));
    mark(bench, 2);
    await settle();
    expect(bench.log).toEqual([]);
    bench.clock.advance(TICK_MS);
    await settle();
    expect(bench.log).toEqual(["d0:0", "d0:1"]);
    bench.transfer.stop();
  });

  test("hashes that are open are made, and cost the stun nothing then", async () => {
    const bench = await followed(new TransferBench([5]));
    bench.disks[0]!.openUnits = 300;
    expect(bench.transfer.settleMs).toBeCloseTo(0.15, 5);
    bench.clock.advance(TICK_MS);
    await vi.waitFor(() => {
      expect(bench.disks[0]!.openUnits).toBe(44);
    });
    bench.clock.advance(TICK_MS);
    await vi.waitFor(() => {
      expect(bench.disks[0]!.openUnits).toBe(0);
    });
    expect(bench.transfer.settleMs).toBe(0);
    bench.transfer.stop();
  });

  test("disks may hold what the downtime budget bears, shared evenly", async () => {
    const bench = await followed(new TransferBench([5, 5]));
    const limits = bench.disks.map(({ plan }) => vi.spyOn(plan, "setHeldMax"));
    bench.bytesPerSecond = 1e6;
    bench.clock.advance(TICK_MS);
    for (const limit of limits) expect(limit).toHaveBeenCalledWith(24, TICK_MS);
    bench.bytesPerSecond = 1e12;
    bench.clock.advance(TICK_MS);
    for (const limit of limits) expect(limit).toHaveBeenLastCalledWith(4096, 2 * TICK_MS);
    bench.transfer.stop();
  });
});

describe("the end", () => {
  test("copies what is left, makes the hashes, and then says that this was all", async () => {
    const bench = await followed(new TransferBench([5, 5]));
    mark(bench, 2);
    mark(bench, 1, 1);
    bench.disks[1]!.openUnits = 1;
    bench.transfer.hold();
    expect(bench.disks.map(({ gate }) => gate)).toEqual(["held", "held"]);
    expect(await bench.transfer.finish()).toEqual(["digest of d0", "digest of d1"]);
    expect(bench.log.slice(0, 3).toSorted()).toEqual(["d0:0", "d0:1", "d1:0"]);
    expect(bench.log.slice(3)).toEqual(["d1:settled", "d0:flush", "d1:flush", "diskEnd"]);
    expect([bench.transfer.restBytes, bench.clock.timerCount]).toEqual([0, 0]);
  });

  test("waits for copies that were under way before", async () => {
    const bench = await followed(new TransferBench([5]));
    bench.disks[0]!.automatic = false;
    mark(bench, 1);
    bench.clock.advance(TICK_MS);
    await settle();
    const finished = vi.fn();
    void bench.transfer.finish().then(finished);
    await settle();
    expect([bench.copiesUnderWay, finished.mock.calls.length]).toEqual([1, 0]);
    bench.disks[0]!.copies[0]!.resolve();
    await settle();
    expect(finished).toHaveBeenCalledWith(["digest of d0"]);
  });

  test("waits for a link that takes no more", async () => {
    const bench = await followed(new TransferBench([5]));
    bench.ready = false;
    const finished = vi.fn();
    void bench.transfer.finish().then(finished);
    await settle();
    expect(finished).not.toHaveBeenCalled();
    bench.ready = true;
    bench.transfer.fill();
    await settle();
    expect(finished).toHaveBeenCalled();
  });

  test("is none where a block was left behind by the last round", async () => {
    const bench = await followed(new TransferBench([5]));
    bench.disks[0]!.automatic = false;
    mark(bench, 1);
    const finished = bench.transfer.finish();
    finished.catch(() => undefined);
    await settle();
    mark(bench, 1);
    bench.disks[0]!.copies[0]!.resolve();
    await expect(finished).rejects.toThrow("no block is marked behind the last round");
    expect(bench.log).not.toContain("diskEnd");
  });
});

describe("disks that are not copied any more", () => {
  test("leave nobody waiting in the copy", async () => {
    const bench = new TransferBench([9]);
    bench.disks[0]!.automatic = false;
    const copied = bench.transfer.copy();
    await settle();
    bench.transfer.stop();
    await expect(copied).rejects.toMatchObject({ code: "cancelled" });
    for (const copy of bench.disks[0]!.copies) copy.resolve();
    bench.transfer.fill();
    bench.clock.advance(10 * TICK_MS);
    await settle();
    expect(bench.log).toEqual(["d0:0", "d0:1", "d0:2", "d0:stop"]);
    expect([bench.clock.timerCount, bench.failures, bench.roundsOver]).toEqual([0, [], 0]);
  });

  test("leave nobody waiting in the last round, nor among its hashes", async () => {
    for (const open of [0, 1000]) {
      const bench = await followed(new TransferBench([9]));
      bench.disks[0]!.automatic = open > 0;
      bench.disks[0]!.openUnits = open;
      mark(bench, 3);
      const finished = bench.transfer.finish();
      finished.catch(() => undefined);
      if (open === 0) await settle();
      else while (bench.disks[0]!.openUnits > 900) await Promise.resolve();
      bench.transfer.stop();
      await expect(finished).rejects.toMatchObject({ code: "cancelled" });
      await settle();
      expect(bench.log).not.toContain("diskEnd");
      expect([bench.disks[0]!.openUnits > 800, bench.failures]).toEqual([open > 0, []]);
    }
  });

  test("are not copied although the end is asked for, and a guest that was released is not held", async () => {
    const bench = await followed(new TransferBench([9]));
    mark(bench, 3);
    bench.transfer.release();
    bench.transfer.hold();
    await expect(bench.transfer.finish()).rejects.toMatchObject({ code: "cancelled" });
    bench.transfer.fill();
    await settle();
    expect([bench.log, bench.disks[0]!.gate]).toEqual([["d0:stop"], "passing"]);
  });

  test("keep a guest held that is held, until it is released", async () => {
    const bench = await followed(new TransferBench([9]));
    bench.transfer.hold();
    bench.transfer.stop();
    expect(bench.disks[0]!.gate).toBe("held");
    bench.transfer.release();
    expect(bench.disks[0]!.gate).toBe("passing");
  });
});

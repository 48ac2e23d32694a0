import { describe, expect, test, vi } from "vitest";
import { Deferred } from "@vmferry/core";
import { BLOCK_BYTES, MirroredBench, settle, UNIT_BYTES } from "./mirrored-bench.ts";

/** In one block. */
const HOT_BYTES = 1.6 * BLOCK_BYTES;

function bytes(length: number, fill = 7): Buffer {
  return Buffer.alloc(length, fill);
}

/** One block becomes hot, and is held from then on. */
async function makeHot(bench: MirroredBench, block: number): Promise<void> {
  bench.disk.plan.setHeldMax(3, bench.clock.nowMs());
  for (let written = 0; written < HOT_BYTES; written += BLOCK_BYTES / 2) {
    await bench.disk.write(block * BLOCK_BYTES, bytes(BLOCK_BYTES / 2, 3));
  }
  expect(bench.disk.plan.heldBlocks).toBe(1);
}

describe("the first round", () => {
  test("tells the dest of every byte, holes and zeros included", async () => {
    const bench = new MirroredBench();
    bench.image.content.fill(1, 0, BLOCK_BYTES);
    bench.image.holeAt = 2 * BLOCK_BYTES;
    await bench.copyRound();
    expect(bench.isEqual).toBe(true);
    expect(bench.sent.at(-1)).toMatch("trim");
    expect(bench.disk.counters).toMatchObject({
      copiedBytes: BLOCK_BYTES,
      zeroBytes: 5 * BLOCK_BYTES,
    });
  });

  test("does not read holes", async () => {
    const bench = new MirroredBench();
    bench.image.holeAt = 0;
    await bench.copyRound();
    expect(bench.image.log.filter((text) => text.startsWith("read"))).toEqual([]);
    expect(bench.sent).toEqual([`trim 0+${bench.image.sizeBytes}`]);
  });

  test("keeps writes out of a hole until it has passed over it, and mirrors them then", async () => {
    const bench = new MirroredBench();
    bench.image.holeAt = 0;
    bench.image.hold = true;
    const copied = bench.disk.copyNext();
    const whole = `extents 0+${bench.image.sizeBytes}`;
    bench.image.go(whole);
    await settle();
    const written = bench.disk.write(100, bytes(50));
    await settle();
    expect(bench.image.waiting).toEqual([whole]);
    bench.image.hold = false;
    bench.image.go(whole);
    await Promise.all([copied, written]);
    expect(bench.sent).toEqual([`trim 0+${bench.image.sizeBytes}`, "data 100+50"]);
    expect(bench.isEqual).toBe(true);
  });

  test("of an image that is filled through the disk is one word", async () => {
    const bench = new MirroredBench({ empty: true });
    expect(bench.sent).toEqual([`trim 0+${bench.image.sizeBytes}`]);
    expect(await bench.disk.copyNext()).toBe(false);
    await bench.disk.write(5, bytes(10));
    expect(bench.isEqual).toBe(true);
  });
});

describe("a write", () => {
  test("is acknowledged when the image has it, and on its way then", async () => {
    const bench = await MirroredBench.copied();
    bench.image.hold = true;
    const acknowledged = vi.fn();
    void bench.disk.write(10, bytes(20)).then(acknowledged);
    await settle();
    expect([acknowledged.mock.calls.length, bench.sent]).toEqual([0, []]);
    bench.image.go("write 10+20");
    await settle();
    expect([acknowledged.mock.calls.length, bench.sent]).toEqual([1, ["data 10+20"]]);
    expect(bench.disk.counters.mirroredBytes).toBe(20);
  });

  test("over several blocks is mirrored in the parts that have to be", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.plan.mark(1);
    await bench.disk.write(BLOCK_BYTES - 10, bytes(BLOCK_BYTES + 20));
    expect(bench.sent).toEqual([`data ${BLOCK_BYTES - 10}+10`, `data ${2 * BLOCK_BYTES}+10`]);
    bench.disk.plan.startLastRound();
    await bench.copyRound();
    expect(bench.isEqual).toBe(true);
  });

  test("of zeros says whether space may be given back", async () => {
    const bench = await MirroredBench.copied();
    await bench.disk.writeZeroes(10, 20, { mayPunch: false });
    await bench.disk.writeZeroes(40, 20, { mayPunch: true });
    expect(bench.sent).toEqual(["zero 10+20", "trim 40+20"]);
    expect(bench.image.log).toEqual(["zero 10+20", "punch 40+20"]);
  });

  test("of zeros makes no block hot, for it costs the link next to nothing", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.plan.setHeldMax(3, 0);
    for (let i = 0; i < 20; i++) await bench.disk.trim(0, BLOCK_BYTES);
    expect([bench.disk.plan.heldBlocks, bench.sent.length]).toEqual([0, 20]);
  });

  test("waits for a copy of its place, and comes to the dest behind it", async () => {
    const bench = new MirroredBench();
    bench.image.content.fill(1);
    bench.image.hold = true;
    const copied = bench.disk.copyNext();
    bench.image.go(bench.image.waiting[0]!);
    await settle();
    const written = bench.disk.write(BLOCK_BYTES, bytes(10));
    await settle();
    expect(bench.image.waiting).toEqual([`read 0+${4 * BLOCK_BYTES}`]);
    bench.image.hold = false;
    bench.image.go(`read 0+${4 * BLOCK_BYTES}`);
    await Promise.all([copied, written]);
    expect(bench.sent.at(-1)).toBe(`data ${BLOCK_BYTES}+10`);
  });

  test("that fails has its blocks copied, whatever the image holds then", async () => {
    const bench = await MirroredBench.copied();
    bench.image.hold = true;
    const written = bench.disk.write(BLOCK_BYTES - 10, bytes(20));
    await settle();
    bench.image.content.fill(7, BLOCK_BYTES - 10, BLOCK_BYTES);
    bench.image.fail(`write ${BLOCK_BYTES - 10}+20`);
    await expect(written).rejects.toMatchObject({ code: "block-io" });
    expect([bench.disk.plan.markedBlocks, bench.sent]).toEqual([2, []]);
    bench.image.hold = false;
    bench.disk.plan.startLastRound();
    await bench.copyRound();
    expect(bench.isEqual).toBe(true);
  });

  test("is marked and not sent where the policy is to iterate", async () => {
    const bench = await MirroredBench.copied({ writes: "iterate" });
    await bench.disk.write(10, bytes(20));
    expect([bench.sent, bench.disk.plan.markedBlocks]).toEqual([[], 1]);
    bench.disk.plan.startRound();
    await bench.copyRound();
    // Three of the block's four units are what the dest has.
    expect(bench.sent).toEqual([`data 0+${UNIT_BYTES}`]);
    expect(bench.disk.counters.unchangedBytes).toBe(3 * UNIT_BYTES);
    expect(bench.isEqual).toBe(true);
  });
});

describe("what is trimmed", () => {
  test("becomes zeros on both sides", async () => {
    const bench = await MirroredBench.copied();
    await bench.disk.trim(100, 50);
    expect([bench.image.log, bench.sent]).toEqual([["punch 100+50"], ["trim 100+50"]]);
  });

  test("is only trimmed once nobody follows", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.release();
    await bench.disk.trim(100, 50);
    expect([bench.image.log, bench.sent]).toEqual([["trim 100+50"], []]);
  });
});

describe("a link that is behind", () => {
  test("has writes marked instead of mirrored", async () => {
    const bench = await MirroredBench.copied();
    bench.behind = true;
    await bench.disk.write(10, bytes(20));
    expect([bench.sent, bench.disk.plan.markedBlocks]).toEqual([[], 1]);
  });

  test("has writes wait where they are throttled, each until it fits", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.throttle = true;
    bench.behind = true;
    const acknowledged = vi.fn();
    const writes = [0, 1, 2].map((block) => bench.disk.write(block * BLOCK_BYTES, bytes(20)));
    for (const write of writes) void write.then(acknowledged);
    await settle();
    expect([acknowledged.mock.calls.length, bench.sent]).toEqual([0, []]);
    // The first of those that waited fills the link again.
    bench.behind = false;
    const push = bench.sent.push.bind(bench.sent);
    bench.sent.push = (...texts) => {
      bench.behind = true;
      return push(...texts);
    };
    for (const count of [1, 2, 3]) {
      bench.catchUp();
      await settle();
      expect([acknowledged.mock.calls.length, bench.sent.length]).toEqual([count, count]);
      bench.behind = false;
    }
    expect(bench.disk.plan.markedBlocks).toBe(0);
  });

  test("has nobody wait for a link that is away", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.throttle = true;
    bench.behind = true;
    const written = bench.disk.write(0, bytes(20));
    await settle();
    bench.isAway = true;
    bench.catchUp();
    await written;
    await bench.disk.write(BLOCK_BYTES, bytes(20));
    expect([bench.sent, bench.disk.plan.markedBlocks]).toEqual([[], 2]);
  });

  test("has nobody wait any more when throttling ends", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.throttle = true;
    bench.behind = true;
    const written = bench.disk.write(0, bytes(20));
    await settle();
    bench.disk.throttle = false;
    bench.catchUp();
    await written;
    expect(bench.disk.plan.markedBlocks).toBe(1);
  });
});

describe("a guest that is held", () => {
  test("is refused a write, and that is reported", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.hold();
    await expect(bench.disk.write(512, bytes(20))).rejects.toMatchObject({ code: "block-io" });
    expect([bench.image.log, bench.writtenWhileHeld]).toEqual([[], [512]]);
    await bench.disk.read(512, 20);
  });

  test("is reported with a write that was under way or waited for its turn", async () => {
    const bench = await MirroredBench.copied();
    bench.image.hold = true;
    const first = bench.disk.write(0, bytes(20));
    const second = bench.disk.write(10, bytes(20));
    await settle();
    bench.disk.hold();
    bench.image.go("write 0+20");
    await first;
    await expect(second).rejects.toMatchObject({ code: "block-io" });
    expect(bench.writtenWhileHeld).toEqual([0, 10]);
    expect(bench.sent).toEqual(["data 0+20"]);
  });

  test("writes as it likes once it is released, and nobody keeps account of it", async () => {
    const bench = await MirroredBench.copied();
    bench.disk.hold();
    bench.disk.release();
    await bench.disk.write(0, bytes(20));
    expect([bench.image.log, bench.sent, bench.writtenWhileHeld]).toEqual([["write 0+20"], [], []]);
  });
});

describe("an open hash", () => {
  test("is made anew from the image when its block was left alone", async () => {
    const bench = await MirroredBench.copied();
    await bench.disk.write(10, bytes(20));
    expect([bench.hashes.openCount, await bench.disk.settleNext()]).toEqual([1, false]);
    bench.clock.advance(400);
    expect([await bench.disk.settleNext(), bench.hashes.openCount]).toEqual([true, 0]);
    const content = bench.image.content.subarray(0, UNIT_BYTES);
    expect(bench.hashes.holds(0, bench.hashes.hash(content))).toBe(true);
    expect(await bench.disk.settleNext(0)).toBe(false);
  });

  test("stays open while its block is marked or held", async () => {
    const bench = await MirroredBench.copied();
    await makeHot(bench, 2);
    await bench.disk.write(10, bytes(20));
    bench.disk.plan.mark(0);
    expect([bench.hashes.openCount > 1, await bench.disk.settleNext(0)]).toEqual([true, false]);
  });

  test("stays open when its block is marked while it is read", async () => {
    const bench = await MirroredBench.copied();
    await bench.disk.write(10, bytes(20));
    bench.image.hold = true;
    const settled = bench.disk.settleNext(0);
    await settle();
    bench.disk.plan.mark(0);
    bench.image.go(`read 0+${UNIT_BYTES}`);
    await settled;
    expect(bench.hashes.openCount).toBe(1);
  });

  test("stays open when a copy of its block waits for its turn behind the reading", async () => {
    const bench = await MirroredBench.copied();
    await bench.disk.write(0, bytes(20, 1));
    bench.image.hold = true;
    const mirrored = bench.disk.write(0, bytes(20, 2));
    bench.disk.plan.writes = "iterate";
    const marked = bench.disk.write(0, bytes(20, 3));
    // Chosen while the second write has not had its turn: the dest has all of the block so far.
    const settled = bench.disk.settleNext(0);
    bench.image.go("write 0+20");
    await mirrored;
    await settle();
    bench.image.go("write 0+20");
    await marked;
    await settle();
    expect(bench.image.waiting).toEqual([`read 0+${UNIT_BYTES}`]);
    // The cursor passes the block, but the copy has not read it.
    bench.disk.plan.startLastRound();
    const copied = bench.disk.copyNext();
    await settle();
    bench.image.hold = false;
    bench.image.go(`read 0+${UNIT_BYTES}`);
    await Promise.all([settled, copied]);
    await bench.copyRound();
    expect([bench.isEqual, bench.hashes.openCount]).toEqual([true, 0]);
  });
});

describe("an image that fails the guest", () => {
  test("is reported, whatever was asked of it, as long as the disk is followed", async () => {
    const bench = new MirroredBench();
    const { disk, image } = bench;
    image.hold = true;
    for (const [text, request] of [
      ["write 0+9", disk.write(0, bytes(9))],
      ["punch 8192+512", disk.trim(8192, 512)],
      ["flush", disk.flush()],
    ] as const) {
      await settle();
      image.fail(text);
      await expect(request).rejects.toThrow(text);
    }
    expect(bench.imageFailures).toHaveLength(3);
    disk.release();
    const flush = disk.flush();
    image.fail("flush");
    await expect(flush).rejects.toThrow("flush");
    expect(bench.imageFailures).toHaveLength(3);
  });

  test("fails a flush only when that is written down", async () => {
    const bench = new MirroredBench();
    const { disk, image } = bench;
    const noted = new Deferred();
    bench.flushNoted = noted.promise;
    image.hold = true;
    let told = false;
    const flush = disk.flush().catch(() => {
      told = true;
    });
    await settle();
    image.fail("flush");
    await settle();
    expect(told).toBe(false);
    noted.resolve();
    await flush;
    expect(told).toBe(true);
  });

  test("is not asked for flushes any more once they are given up", async () => {
    const bench = new MirroredBench();
    bench.disk.release();
    bench.disk.giveUpFlushes();
    await bench.disk.flush();
    expect(bench.image.log).toEqual([]);
  });
});

// A lazy disk, request by request: what it asks for, when it answers, and what it does when the
// source or the image does not do as it should.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BlockContent, Urgency, type BlocksMessage, type UnitRun } from "@vmferry/protocol";
import { ManualClock } from "../../packages/agent/src/events/manual-clock.ts";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import { BlockError } from "@vmferry/block";
import { PresentMap } from "../../packages/block/src/image/present-map.ts";
import { MemoryDevice } from "../../packages/block/src/memory-device.ts";
import { seededRandom, SimulatedHost } from "../../packages/block/src/simulated-host.ts";
import { LazyDisk } from "../../packages/dest-agent/src/disk/lazy-disk.ts";

const UNIT_BYTES = 4096;
const UNITS = 32;
const SIZE = UNITS * UNIT_BYTES - 512;

let image: MemoryDevice;
let host: SimulatedHost;
let map: PresentMap;
let hashes: DiskHashes;
let clock: ManualClock;
let asked: string[];
let failures: unknown[];
let disk: LazyDisk;

beforeEach(async () => {
  image = new MemoryDevice(SIZE);
  image.content.fill(0xee);
  clock = new ManualClock();
  hashes = new DiskHashes({ sizeBytes: SIZE, unitBytes: UNIT_BYTES, seedHex: "0123456789abcdef" });
  hashes.leaveOut(0, UNITS);
  host = new SimulatedHost(512, seededRandom(1));
  map = await PresentMap.create(mapOptions(), () => false);
  asked = [];
  failures = [];
  disk = new LazyDisk({
    ...{ id: "disk0", image, map, hashes, compression: false, clock },
    ask: ({ first, count }: UnitRun, urgency) => {
      asked.push(`${urgency === Urgency.URGENT ? "urgent" : "background"} ${first}+${count}`);
    },
    onFailed: (error) => failures.push(error),
  });
});

afterEach(async () => {
  await disk.stop();
});

function mapOptions(): Parameters<typeof PresentMap.open>[0] {
  const subject = { imageBytes: SIZE, unitBytes: UNIT_BYTES, migrationId: "m", epoch: 1 };
  return { storage: host.openMap(), subject, bootId: host.bootId };
}

function data(first: number, fill = first + 1): BlocksMessage {
  const content = Buffer.alloc(hashes.lengthOf(first), fill);
  const hash = hashes.hash(content);
  return { ...answer(first, 1, BlockContent.RAW), hash, data: content };
}

function answer(first: number, count: number, content: BlockContent): BlocksMessage {
  return { kind: "blocks", disk: 0, content, first, count, hash: 0n, data: Buffer.alloc(0) };
}

/** Whether it is over by the time that everything else has stood still. */
async function isOver(promise: Promise<unknown>): Promise<boolean> {
  let over = false;
  promise.then(
    () => (over = true),
    () => (over = true),
  );
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
  return over;
}

describe("a lazy disk", () => {
  it("asks at once for what is read, all of it together, and reads when it is there", async () => {
    const read = disk.read(UNIT_BYTES - 512, UNIT_BYTES + 1024);
    expect(asked).toEqual(["urgent 0+3"]);
    disk.arrived(data(0));
    disk.arrived(data(2));
    expect(await isOver(read)).toBe(false);
    disk.arrived(data(1));
    const content = await read;
    expect([content[0], content[512], content.at(-1)]).toEqual([1, 2, 3]);
    expect(await disk.read(0, 3 * UNIT_BYTES)).toHaveLength(3 * UNIT_BYTES);
    expect(asked).toHaveLength(1);
  });

  it("asks once for what several wait for", async () => {
    const reads = [disk.read(0, 512), disk.read(1024, 512), disk.write(512, Buffer.alloc(512, 9))];
    expect(asked).toEqual(["urgent 0+1"]);
    disk.arrived(data(0));
    await Promise.all(reads);
    expect(await disk.read(0, 1024)).toEqual(
      Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 9)]),
    );
  });

  it("asks nobody for what a write covers, and for the parts of a unit that it does not", async () => {
    const write = disk.write(UNIT_BYTES - 512, Buffer.alloc(2 * UNIT_BYTES, 9));
    expect(asked).toEqual(["urgent 0+1", "urgent 2+1"]);
    disk.arrived(data(0));
    disk.arrived(data(2));
    await write;
    expect(map.missing).toBe(UNITS - 3);
    const unit = await disk.read(2 * UNIT_BYTES, UNIT_BYTES);
    expect([unit[0], unit.at(-1)]).toEqual([9, 3]);
    expect(hashes.isLeftOut(1)).toBe(true);
    expect(hashes.isLeftOut(2)).toBe(false);
  });

  it("drops what comes for a unit that the guest is writing or has written", async () => {
    // Asked for in the background, then urgently: two answers may come, of which the first is bad news.
    const read = disk.read(0, 512);
    disk.arrived(answer(0, 1, BlockContent.UNREADABLE));
    await expect(read).rejects.toBeInstanceOf(BlockError);
    image.hold();
    const write = disk.write(0, Buffer.alloc(UNIT_BYTES, 9));
    for (let i = 0; i < 5; i++) await Promise.resolve();
    disk.arrived(data(0));
    image.release();
    await write;
    disk.arrived(data(0));
    await isOver(Promise.resolve());
    expect(image.content.subarray(0, UNIT_BYTES)).toEqual(Buffer.alloc(UNIT_BYTES, 9));
  });

  it("trims no unit that it would have to fetch, and shows nothing of what was there before", async () => {
    await disk.trim(512, 3 * UNIT_BYTES);
    expect(asked).toEqual([]);
    expect(map.missing).toBe(UNITS - 2);
    expect(await disk.read(UNIT_BYTES, 2 * UNIT_BYTES)).toEqual(Buffer.alloc(2 * UNIT_BYTES));
    await disk.trim(512, 512);
    expect(map.missing).toBe(UNITS - 2);
    // The last unit is shorter, and covered all the same.
    await disk.trim(31 * UNIT_BYTES, UNIT_BYTES - 512);
    expect(map.has(31)).toBe(true);
  });

  it("fails a request for what the source cannot read, and asks again when it is asked", async () => {
    const read = disk.read(0, 512);
    disk.arrived(answer(0, 1, BlockContent.UNREADABLE));
    await expect(read).rejects.toMatchObject({ detail: { errno: "EIO" } });
    const again = disk.read(0, 512);
    expect(asked).toEqual(["urgent 0+1", "urgent 0+1"]);
    disk.arrived(data(0));
    await again;
    expect(failures).toEqual([]);
  });

  it("tries again later what found no space, and is whole in the end", async () => {
    disk.pull();
    image.failure = new BlockError("no space", {
      ...{ code: "block-io", errno: "ENOSPC", operation: "write", offset: 0 },
    });
    disk.arrived(data(0));
    await isOver(Promise.resolve());
    image.failure = null;
    await answerAll();
    expect(map.missing).toBe(1);
    expect(await isOver(disk.whole)).toBe(false);
    asked = [];
    clock.advance(5000);
    expect(asked).toEqual(["background 0+1"]);
    disk.arrived(data(0));
    await disk.whole;
    expect(Array.from({ length: UNITS }, (_, unit) => map.isDurable(unit))).not.toContain(false);
    expect(disk.end()).toEqual({ kept: [], digest: hashes.digest() });
    expect(failures).toEqual([]);
  });

  it("fails for good when the image fails otherwise", async () => {
    const reads = [disk.read(0, 512), disk.read(UNIT_BYTES, 512)];
    image.failure = new Error("EIO");
    disk.arrived(data(0));
    for (const read of reads)
      await expect(read).rejects.toMatchObject({ detail: { errno: "EIO" } });
    image.failure = null;
    await expect(disk.read(0, 512)).rejects.toThrow("may have lost something");
    await expect(disk.flush()).rejects.toThrow("may have lost something");
    await expect(disk.whole).rejects.toThrow("may have lost something");
    expect(failures).toHaveLength(1);
    await expect(map.mark(5, 1)).rejects.toThrow("failed before");
  });

  it("fails for good when a flush fails", async () => {
    image.failure = new Error("EIO");
    await expect(disk.flush()).rejects.toThrow("may have lost something");
    image.failure = null;
    await expect(disk.flush()).rejects.toThrow("may have lost something");
    expect(disk.isLost).toBe(true);
  });

  it("says so to the next life of its agent before it answers the flush", async () => {
    image.failure = new Error("EIO");
    const first = disk.flush();
    await first.catch(() => {
      host.killAgent();
    });
    await expect(first).rejects.toThrow("may have lost something");
    await expect(PresentMap.open(mapOptions())).rejects.toThrow("a write was lost");
  });

  it("waits for a source without end, until it is given up and when it is taken up again", async () => {
    const read = disk.read(0, 512);
    clock.advance(3_600_000);
    expect(await isOver(read)).toBe(false);
    disk.giveUp();
    await expect(read).rejects.toThrow("was given up");
    await expect(disk.read(0, 512)).rejects.toThrow("was given up");
    await disk.write(UNIT_BYTES, Buffer.alloc(UNIT_BYTES, 7));
    expect(await disk.read(UNIT_BYTES, 512)).toEqual(Buffer.alloc(512, 7));
    disk.takeUp();
    const again = disk.read(0, 512);
    disk.arrived(data(0));
    expect(await again).toEqual(Buffer.alloc(512, 1));
  });

  it.each([
    ["another hash", (): BlocksMessage => ({ ...data(0), hash: 5n }), "unit of another hash"],
    ["another length", (): BlocksMessage => ({ ...data(0), data: Buffer.alloc(5) }), "length"],
    ["zstd that was not agreed", (): BlocksMessage => ({ ...data(0), content: 2 }), "zstd"],
  ])("refuses a unit of %s", async (_, lie, rule) => {
    const read = disk.read(0, 512);
    expect(() => {
      disk.arrived(lie());
    }).toThrow(rule);
    expect(await isOver(read)).toBe(false);
    disk.arrived(data(0));
    await read;
  });

  it("says of a missing unit that it may hold anything, and of others what the image says", async () => {
    await disk.writeZeroes(0, 2 * UNIT_BYTES, { mayPunch: true });
    expect(await disk.extents(0, SIZE)).toMatchObject([{ offset: 0, kind: "zero" }, {}]);
    expect(await disk.extents(2 * UNIT_BYTES + 512, SIZE - 2 * UNIT_BYTES - 512)).toEqual([
      { offset: 2 * UNIT_BYTES + 512, length: SIZE - 2 * UNIT_BYTES - 512, kind: "data" },
    ]);
  });

  it("pulls what lies ahead of a read before everything else", async () => {
    disk.pull();
    expect(asked).toEqual(["background 0+2"]);
    const read = disk.read(20 * UNIT_BYTES, 512);
    disk.arrived(answer(0, 2, BlockContent.HOLE));
    await isOver(Promise.resolve());
    expect(asked).toEqual(["background 0+2", "urgent 20+1", "background 21+2", "background 2+1"]);
    await Promise.all([disk.stop(), expect(read).rejects.toThrow("not served any more")]);
  });

  async function answerAll(): Promise<void> {
    for (let turns = 0; turns < 500; turns++) {
      for (const text of asked.splice(0)) {
        const [first, count] = text.split(" ")[1]!.split("+").map(Number);
        for (let unit = first!; unit < first! + count!; unit++)
          if (unit > 0) disk.arrived(data(unit));
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
});

import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { seededRandom, SimulatedHost } from "../simulated-host.ts";
import { MapFile, readBootId } from "./map-storage.ts";
import { MAP_BLOCK_BYTES, mapBytesOf, PAGE_UNITS } from "./present-map-codec.ts";
import { PresentMap } from "./present-map.ts";

const UNIT_BYTES = 65_536;
const UNITS = PAGE_UNITS + 100;
const SUBJECT = {
  imageBytes: UNITS * UNIT_BYTES - 512,
  unitBytes: UNIT_BYTES,
  migrationId: "m1",
  epoch: 3,
};

let host: SimulatedHost;

beforeEach(() => {
  host = new SimulatedHost(512, seededRandom(1));
});

function options(subject = SUBJECT): Parameters<typeof PresentMap.open>[0] {
  return { storage: host.openMap(), subject, bootId: host.bootId };
}

function create(present: readonly number[] = []): Promise<PresentMap> {
  return PresentMap.create(options(), (unit) => present.includes(unit));
}

function presentIn(map: PresentMap): number[] {
  return Array.from({ length: map.units }, (_, unit) => unit).filter((unit) => map.has(unit));
}

describe("a present map", () => {
  it("begins with what the image has, durably", async () => {
    const map = await create([0, 5, UNITS - 1]);
    expect(map.missing).toBe(UNITS - 3);
    expect([0, 5, UNITS - 1].every((unit) => map.isDurable(unit))).toBe(true);
    host.crash();
    expect(presentIn(await PresentMap.open(options()))).toEqual([0, 5, UNITS - 1]);
  });

  it("keeps what was marked when its agent is killed, and forgets it when the host crashes", async () => {
    const map = await create([1]);
    await map.mark(7, 2);
    await map.mark(PAGE_UNITS - 1, 2);
    expect(map.missing).toBe(UNITS - 5);
    host.killAgent();
    const again = await PresentMap.open(options());
    expect(presentIn(again)).toEqual([1, 7, 8, PAGE_UNITS - 1, PAGE_UNITS]);
    expect(again.isDurable(7)).toBe(false);
    host.crash();
    expect(presentIn(await PresentMap.open(options()))).toEqual([1]);
  });

  it("keeps what was settled when the host crashes, and no more", async () => {
    const map = await create();
    await map.mark(7, 1);
    const point = map.point();
    await map.mark(9, 1);
    await map.settle(point);
    host.crash();
    const again = await PresentMap.open(options());
    expect(presentIn(again)).toEqual([7]);
    // And goes on from there, in the new boot.
    await again.mark(11, 1);
    host.killAgent();
    expect(presentIn(await PresentMap.open(options()))).toEqual([7, 11]);
  });

  it("settles after a killed agent what that one had marked", async () => {
    await (await create()).mark(3, 1);
    host.killAgent();
    const map = await PresentMap.open(options());
    await map.settle(map.point());
    host.crash();
    expect(presentIn(await PresentMap.open(options()))).toEqual([3]);
  });

  it("holds many marks at once", async () => {
    const map = await create();
    const units = Array.from({ length: 200 }, (_, i) => (i * 7919) % UNITS);
    await Promise.all(units.map((unit) => map.mark(unit, 1)));
    host.killAgent();
    expect(presentIn(await PresentMap.open(options()))).toEqual(units.toSorted((a, b) => a - b));
  });

  it("is what it was before or after, wherever a settling is torn", async () => {
    for (let round = 0; round < 200; round++) {
      host = new SimulatedHost(512, seededRandom(round));
      const map = await create([1]);
      await map.mark(2, 1);
      await map.settle(map.point());
      await map.mark(3, 1);
      let left = Math.floor(host.random() * 3);
      host.onOperation = () => {
        if (left-- === 0) host.crash();
      };
      await map.settle(map.point()).catch(() => undefined);
      host.crash();
      expect([
        [1, 2],
        [1, 2, 3],
      ]).toContainEqual(presentIn(await PresentMap.open(options())));
    }
  });

  it("survives the loss of either slot of each block, and not that of both", async () => {
    const map = await create([4]);
    await map.settle(map.point());
    host.killAgent();
    const whole = Buffer.from(host.map.cached);
    const blocks = whole.length / MAP_BLOCK_BYTES;
    for (let block = 0; block < blocks; block++) {
      host.map.cached = Buffer.from(whole);
      host.map.cached[block * MAP_BLOCK_BYTES + 100]! ^= 1;
      expect(presentIn(await PresentMap.open(options())), `block ${block}`).toEqual([4]);
    }
    host.map.cached = Buffer.from(whole);
    // Page 1 of the durable layer: behind the header, page 0 and 1 of slot 0, page 0 and 1 of slot 1.
    for (const block of [3, 5]) host.map.cached[block * MAP_BLOCK_BYTES + 100]! ^= 1;
    await expect(PresentMap.open(options())).rejects.toThrow("damaged (durable)");
  });

  test.each([
    ["another size", { imageBytes: SUBJECT.imageBytes + 512 }, "imageBytes"],
    ["another unit", { unitBytes: UNIT_BYTES * 2 }, "unitBytes"],
    ["another migration", { migrationId: "m2" }, "migrationId"],
    ["another epoch", { epoch: 4 }, "epoch"],
  ])("is refused for %s", async (_, change, field) => {
    await create();
    host.killAgent();
    await expect(PresentMap.open(options({ ...SUBJECT, ...change }))).rejects.toThrow(field);
  });

  it("is refused when it was cut, when it is empty and when it is something else", async () => {
    await create();
    host.killAgent();
    const whole = host.map.cached;
    expect(whole.length).toBe(mapBytesOf(SUBJECT));
    host.map.cached = whole.subarray(0, whole.length - 1);
    await expect(PresentMap.open(options())).rejects.toThrow("cut");
    host.map.cached = Buffer.alloc(0);
    await expect(PresentMap.open(options())).rejects.toThrow("no header");
    host.map.cached = Buffer.alloc(whole.length, 0x5a);
    await expect(PresentMap.open(options())).rejects.toThrow("no header");
  });

  it("has failed for good after a write that failed, and says so to whoever opens it", async () => {
    const map = await create([1]);
    let isBroken = true;
    host.onOperation = (operation) => {
      if (operation === "map.write" && isBroken) {
        isBroken = false;
        throw new Error("EIO");
      }
    };
    await expect(map.mark(2, 1)).rejects.toThrow("EIO");
    expect(map.has(2)).toBe(false);
    await expect(map.mark(2, 1)).rejects.toThrow("failed before");
    await expect(map.settle(map.point())).rejects.toThrow("failed before");
    host.killAgent();
    await expect(PresentMap.open(options())).rejects.toThrow("a write was lost");
  });

  it("is made to have failed by whoever needs nothing else of it", async () => {
    await create([1]);
    expect(await PresentMap.hasFailed(host.openMap())).toBe(false);
    await PresentMap.failUnopened(host.openMap());
    await PresentMap.failUnopened(host.openMap());
    host.crash();
    expect(await PresentMap.hasFailed(host.openMap())).toBe(true);
    await expect(PresentMap.open(options())).rejects.toThrow("a write was lost");
  });

  it("has failed for good where what the last agent left cannot be synced: the next sync would succeed", async () => {
    await (await create()).mark(3, 1);
    host.killAgent();
    let isBroken = true;
    host.onOperation = (operation) => {
      if (operation !== "map.datasync" || !isBroken) return;
      isBroken = false;
      throw new Error("EIO");
    };
    const opened = PresentMap.open(options());
    await expect(opened).rejects.toThrow("EIO");
    await expect(PresentMap.open(options())).rejects.toThrow("a write was lost");
  });

  it.each([1, 2, 3])(
    "has failed for good where sync %i of its first opening in a boot fails",
    async (which) => {
      await (await create()).mark(3, 1);
      host.crash();
      let syncs = 0;
      host.onOperation = (operation) => {
        if (operation === "map.datasync" && ++syncs === which) throw new Error("EIO");
      };
      await expect(PresentMap.open(options())).rejects.toThrow("EIO");
      await expect(PresentMap.open(options())).rejects.toThrow("a write was lost");
    },
  );

  it("has failed for good after a sync that failed", async () => {
    const map = await create();
    await map.mark(2, 1);
    let isBroken = true;
    host.onOperation = (operation) => {
      if (operation === "map.datasync" && isBroken) {
        isBroken = false;
        throw new Error("EIO");
      }
    };
    await expect(map.settle(map.point())).rejects.toThrow("EIO");
    await expect(map.mark(3, 1)).rejects.toThrow("failed before");
    host.crash();
    await expect(PresentMap.open(options())).rejects.toThrow("a write was lost");
  });
});

describe("a present map in a file", () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "present-map-"));
  });
  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  it("is found beside its image, and is gone when it is removed", async () => {
    const image = join(directory, "a.raw");
    const bootId = await readBootId();
    const storage = await MapFile.create(image);
    const map = await PresentMap.create({ storage, subject: SUBJECT, bootId }, () => false);
    await map.mark(10, 1);
    await map.close();
    expect((await stat(`${image}.vmferry-present`)).size).toBe(mapBytesOf(SUBJECT));
    const found = await MapFile.open(image);
    const again = await PresentMap.open({ storage: found!, subject: SUBJECT, bootId });
    expect(presentIn(again)).toEqual([10]);
    await again.close();
    await MapFile.remove(image);
    expect(await MapFile.open(image)).toBe(null);
  });

  it("takes the place of one that an earlier attempt left", async () => {
    const image = join(directory, "a.raw");
    await writeFile(`${image}.vmferry-present`, "half of something");
    const storage = await MapFile.create(image);
    expect(storage.sizeBytes).toBe(0);
    await storage.close();
  });
});

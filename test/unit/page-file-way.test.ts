/** The page file from end to end, beside lanes that are cut, on a real file system and without QEMU. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { pageFilePlace } from "../../packages/agent/src/index.ts";
import { FilePages } from "../../packages/dest-agent/src/postcopy/file-pages.ts";
import { RestFile } from "../../packages/source-agent/src/postcopy/rest-file.ts";
import { logger, tick } from "./page-lanes-memory.ts";
import { World } from "./page-lanes-world.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const BLOCK_PAGES = [3000, 3, 700];
const KEY = {
  key: "5e".repeat(32),
  guestName: "web1",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
};

let sharedDir: string;
let world: World;
const troubles: string[] = [];

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  world = new World(seed, {
    blockPages: BLOCK_PAGES,
    share: 0.6,
    compression: true,
    bandwidthBytesPerSecond: null,
  });
  troubles.length = 0;
});
afterEach(async () => {
  world.stop();
  await rm(sharedDir, { recursive: true });
});

const place = (): ReturnType<typeof pageFilePlace> => {
  const blocks = BLOCK_PAGES.map((pages, index) => ({
    name: `block${index}`,
    lengthBytes: pages * 4096,
  }));
  return pageFilePlace(sharedDir, { migrationId: "m1", epoch: 3 }, { key: KEY, blocks });
};

const onTrouble = (error: Error): void => {
  troubles.push(error.message);
};

function written(): RestFile {
  return new RestFile({
    ...{ place: place(), store: world.store, hashes: world.hashes, logger, onTrouble },
  });
}

function taken(): FilePages {
  return new FilePages({ place: place(), logger, onTrouble });
}

/** The clock of the lanes stands; files take their own time. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo() && world.faults.length === 0) await tick();
}

function expectWhole(): void {
  expect(world.faults).toEqual([]);
  expect(troubles).toEqual([]);
  expect(world.placed.size).toBe(world.store.bytes.size);
  expect(world.placer!.isEnded).toBe(true);
}

it(`brings all of memory when no lane ever comes (SEED=${seed})`, async () => {
  world.deafShare = 1;
  const file = written();
  world.begin(taken());
  await until(() => world.fetch.missingPages === 0);
  await file.ended;
  await world.run();
  expectWhole();
  expect(file.phase).toBe("complete");
  expect(world.whole!.equal).toBeNull();
  expect(world.fetch.counters.filePages).toBe(world.store.bytes.size);
});

it(`brings the rest of what lanes began that were cut for good (SEED=${seed})`, async () => {
  world.begin(taken());
  while (world.fetch.counters.placedPages < 300) {
    world.deliver();
    world.clock.advance(0.1);
    await tick();
  }
  world.deafShare = 1;
  world.cutOneLane();
  world.cutOneLane();
  const { placedPages } = world.fetch.counters;
  const file = written();
  await until(() => world.fetch.missingPages === 0);
  await file.ended;
  await world.run();
  expectWhole();
  expect(world.fetch.counters.filePages).toBeLessThanOrEqual(
    world.store.bytes.size - Math.min(placedPages, 300),
  );
});

it(`has a page that a vCPU waits for when no lane does (SEED=${seed})`, async () => {
  world.deafShare = 1;
  world.begin(taken());
  const asked = world.placer!.missing.next(0, 1500, 1)!;
  world.fetch.requested({ block: 0, firstPage: asked.first, pageCount: 1 });
  const file = written();
  await until(() => !world.placer!.missing.has(0, asked.first));
  await until(() => world.fetch.missingPages === 0);
  await file.ended;
  await world.run();
  expectWhole();
  expect(world.fetch.waits.count).toBe(1);
});

it(`counts for the digest of lanes that come later (SEED=${seed})`, async () => {
  world.deafShare = 1;
  const file = written();
  world.begin(taken());
  await until(() => world.fetch.missingPages === 0);
  await file.ended;
  world.deafShare = 0;
  await world.run();
  expectWhole();
  expect(world.whole!.equal).toBe(true);
});

it(`and the lanes bring each page once, however they are cut (SEED=${seed})`, async () => {
  const file = written();
  world.begin(taken());
  await world.run((turn) => {
    if (turn % 400 === 399) world.cutOneLane();
  });
  await file.stop();
  expectWhole();
  expect(world.whole!.equal).not.toBe(false);
});

it(`is on the share under no name but its own (SEED=${seed})`, async () => {
  await written().ended;
  expect(await readdir(join(sharedDir, "vmferry-pages"))).toEqual(["m1.3.pages"]);
});

// Disks that follow a guest, and that the next life of the dest's agent cannot take up at first.

import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createLogger, ManualClock } from "../../packages/agent/src/index.ts";
import { createImage, HeldSockets, ImageFile, lockImage, MapFile } from "@vmferry/block";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import { keepDisks } from "../../packages/dest-agent/src/adapters/kept-disks.ts";
import { BlockFetcher } from "../../packages/dest-agent/src/disk/block-fetcher.ts";
import { LazyImage, type LazyImageOptions } from "../../packages/dest-agent/src/disk/lazy-image.ts";
import { LazyDisks } from "../../packages/dest-agent/src/session/lazy-disks.ts";

const UNIT = 65_536;
const SIZE = 4 * UNIT;
const about = { migrationId: "m1", epoch: 2, generation: 1, incarnation: "s1" };
const hashSeed = "0123456789abcdef";
const logger = createLogger({ role: "dest", level: "silent" });
const deadQemu = { qmp: null, isAlive: () => false };
const emfile = Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });

let root: string;
let guestsDir: string;
let imageDir: string;
let guestDir: string;
let image: string;
let socketPath: string;
let sockets: HeldSockets;
let clock: ManualClock;
let disks: LazyDisks | null;
/** What the guest's session was told. */
let told: (string | null)[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "vmferry-lost-"));
  [guestsDir, imageDir] = [join(root, "guests"), join(root, "images")];
  guestDir = join(guestsDir, "web1");
  image = join(imageDir, "disk0.raw");
  clock = new ManualClock();
  disks = null;
  told = [];
  for (const directory of [guestDir, imageDir]) await mkdir(directory, { recursive: true });
  const directory = join(root, "nbd");
  sockets = await HeldSockets.open({ directory, onTrouble: () => undefined, aloneMsMax: 30_000 });
  socketPath = join(directory, "7b1e26d6-0");
  await leaveDisk();
});

afterEach(async () => {
  vi.restoreAllMocks();
  await disks?.abandon();
  sockets.close();
  await rm(root, { recursive: true, force: true });
});

function lazyOptions(): LazyImageOptions {
  const onFailed = (): undefined => undefined;
  const fetcher = new BlockFetcher(clock);
  return { id: "disk0", index: 0, fetcher, compression: true, clock, onFailed };
}

/** As an agent that is killed behind the hand-over. */
async function leaveDisk(): Promise<void> {
  const disk = { id: "disk0", index: 0, image: "disk0.raw", unitBytes: UNIT, socketPath };
  await keepDisks(guestDir, { claim: about, hashSeed, disks: [disk] });
  const created = await createImage({
    ...{ directory: imageDir, name: "disk0.raw", sizeBytes: SIZE, needBytes: 0 },
    mark: { blockBytes: UNIT, migrationId: about.migrationId, epoch: about.epoch },
  });
  const hashes = new DiskHashes({ sizeBytes: SIZE, unitBytes: UNIT, seedHex: hashSeed });
  hashes.leaveOut(0, hashes.units);
  await (await LazyImage.begin(created, hashes, lazyOptions())).close();
}

async function takeUp(): Promise<LazyDisks> {
  let taken: LazyDisks[] | null = null;
  void LazyDisks.takeUpAll({ guestsDir, imageDir, clock, logger, sockets }).then((all) => {
    taken = all;
  });
  await later(() => taken !== null);
  disks = taken![0]!;
  disks.onLost = (lost) => told.push(lost?.message ?? null);
  return disks;
}

/** What waits for time gets it. */
async function later(isSo: () => boolean): Promise<void> {
  const look = (): boolean => {
    clock.advance(500);
    return isSo();
  };
  await expect.poll(look, { interval: 2, timeout: 10_000 }).toBe(true);
}

async function muchTime(): Promise<void> {
  for (let second = 0; second < 200; second++) {
    clock.advance(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function expectServed(): Promise<void> {
  expect(disks!.progress).toMatchObject([{ id: "disk0", remainingBytes: SIZE }]);
  const socket = createConnection(socketPath);
  const [bytes] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  expect(bytes.toString("latin1", 0, 8)).toBe("NBDMAGIC");
}

const mapPath = (): string => `${image}.vmferry-present`;
const markPath = (): string => `${image}.vmferry`;
const keptPath = (): string => join(guestDir, "lazy-disks.json");

/** Takes it away; what is returned puts it back. */
async function without(path: string, instead?: string): Promise<() => Promise<void>> {
  await rename(path, `${path}.away`);
  if (instead !== undefined) await writeFile(path, instead);
  return () => rename(`${path}.away`, path);
}

describe.each<[string, RegExp, () => Promise<() => Promise<void>>]>([
  ["its present map is gone", /present map is gone/, () => without(mapPath())],
  ["its mark is gone", /has lost its mark/, () => without(markPath())],
  ["its mark is damaged", /mark of .* is damaged/, () => without(markPath(), "x".repeat(512))],
  ["what was written down is damaged", /cannot be used/, () => without(keptPath(), "{")],
  [
    "somebody has its lock",
    /in use|locked/,
    async () => {
      const other = await ImageFile.open(image);
      await lockImage(other);
      return () => other.close();
    },
  ],
  [
    "there are no descriptors for the image",
    /EMFILE/,
    () => {
      const open = vi.spyOn(ImageFile, "open").mockRejectedValue(emfile);
      return Promise.resolve(() => {
        open.mockRestore();
        return Promise.resolve();
      });
    },
  ],
  [
    "there are no descriptors for its export",
    /EMFILE/,
    () => {
      const listen = vi.spyOn(HeldSockets.prototype, "listen").mockRejectedValue(emfile);
      return Promise.resolve(() => {
        listen.mockRestore();
        return Promise.resolve();
      });
    },
  ],
])("a disk that cannot be taken up, for %s", (_, reason, spoil) => {
  test("is lost and not whole, and is taken up when it can be", async () => {
    const mend = await spoil();
    const lazy = await takeUp();
    expect(lazy.lost?.message).toMatch(reason);
    let isSettled = false;
    const whole = lazy.whole(deadQemu).finally(() => {
      isSettled = true;
    });
    whole.catch(() => undefined);
    await muchTime();
    expect([lazy.isWhole, isSettled, existsSync(keptPath())]).toEqual([false, false, true]);
    // The same reason is told once, and that was before anybody listened.
    expect(told).toEqual([]);

    await mend();
    await later(() => lazy.lost === null);
    expect(told).toEqual([null]);
    await expectServed();
    expect([lazy.isWhole, isSettled]).toEqual([false, false]);
  });

  test("is let go of with its guest", async () => {
    await spoil();
    const lazy = await takeUp();
    const refused = expect(lazy.whole(deadQemu)).rejects.toThrow("refused");
    await lazy.abandon();
    await refused;
    vi.restoreAllMocks();
    await muchTime();
    expect([lazy.isWhole, told]).toEqual([false, []]);
  });
});

test("what QEMU asks of it waits meanwhile", async () => {
  const mend = await without(mapPath());
  const lazy = await takeUp();
  expect(lazy.lost).not.toBeNull();
  await expectServed();
  await mend();
});

test("what was written down belongs to its guest alone while it cannot be read", async () => {
  await without(keptPath(), "{");
  const lazy = await takeUp();
  expect(lazy.isOf({ migrationId: "m7", guest: "web1" })).toBe(true);
  expect(lazy.isOf({ migrationId: "m7", guest: "web2" })).toBe(false);
  const hello = { kind: "blocks-hello", version: 2, ...about, attempt: 1 } as const;
  expect(lazy.claimMatches(hello)).toBe(false);
});

test("what was written down and is gone by then is lost, and not absent", async () => {
  await without(keptPath(), "{");
  const lazy = await takeUp();
  await rm(keptPath());
  await later(() => told.length > 0);
  expect(lazy.lost?.message).toContain("is gone from");
  expect(lazy.isWhole).toBe(false);
});

test.each([
  ["its disk", () => without(mapPath())],
  ["what was written down of it", () => without(keptPath(), "{")],
])("a socket that QEMU may wait at stays while %s cannot be read", async (_, spoil) => {
  const { descriptor, held } = await sockets.listen(socketPath);
  expect(descriptor).toBeGreaterThan(0);
  await held;
  await spoil();
  await takeUp();
  expect(existsSync(socketPath)).toBe(true);
});

test("an attempt that fails leaves no descriptor open", async () => {
  const map = await MapFile.open(image);
  await map!.write(0, Buffer.alloc(2 * 4096));
  await map!.close();
  const known = { unitBytes: UNIT, seedHex: hashSeed };
  for (let attempt = 0; attempt < 3; attempt++) {
    await expect(LazyImage.takeUp(image, known, lazyOptions())).rejects.toThrow("no header");
  }
  expect(openFiles().filter((path) => path.startsWith(imageDir))).toEqual([]);
});

/** Of this process. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // It was the directory's own.
      return [];
    }
  });
}

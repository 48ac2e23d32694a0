// The disks that follow a guest, between the two agents' parts over real sockets and files: everything
// but QEMU, which is dead here and so needs nothing.

import { once } from "node:events";
import { closeSync, existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createLogger, ReopenedImage } from "../../packages/agent/src/index.ts";
import { createImage, HeldSockets, type CreatedImage } from "@vmferry/block";
import { messageOf, systemClock as clock } from "@vmferry/core";
import type { QmpClient } from "@vmferry/qemu";
import { ImageDurability } from "../../packages/block/src/image/image-durability.ts";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import {
  keepDisks,
  type KeptDisk,
  type LazyDisk,
} from "../../packages/dest-agent/src/adapters/kept-disks.ts";
import { PeerListener } from "../../packages/dest-agent/src/adapters/peer-listener.ts";
import { BlockFetcher } from "../../packages/dest-agent/src/disk/block-fetcher.ts";
import { LazyImage } from "../../packages/dest-agent/src/disk/lazy-image.ts";
import { LazyDisks } from "../../packages/dest-agent/src/session/lazy-disks.ts";
import { admitBlocks } from "../../packages/dest-agent/src/session/page-link.ts";
import { PeerDialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";
import {
  readLeftDisks,
  writeLeftDisks,
} from "../../packages/source-agent/src/adapters/left-disks.ts";
import { leftDiskRest } from "../../packages/source-agent/src/disk/left-rest.ts";
import type { DiskRest } from "../../packages/source-agent/src/disk/disk-rest.ts";

const UNIT = 65_536;
/** The last unit is shorter. */
const SIZE = 20 * UNIT + 4096;
const IDS = ["disk0", "disk1"];
const about = { migrationId: "m1", epoch: 2, generation: 1, incarnation: "s1" };
const hashSeed = "0123456789abcdef";
const SILENT = createLogger({ role: "dest", level: "silent" });
const logger = SILENT;
const deadQemu = { qmp: null, isAlive: () => false };

let root: string;
let guestsDir: string;
let imageDir: string;
let guestDir: string;
let memoryDir: string;
let socketDir: string;
let sockets: HeldSockets;
let owner: LazyDisks | undefined;
let listener: PeerListener;
let rests: DiskRest[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "vmferry-lazy-"));
  [guestsDir, imageDir, memoryDir, socketDir] = ["guests", "images", "memory", "nbd"].map((name) =>
    join(root, name),
  ) as [string, string, string, string];
  sockets = await openSockets();
  guestDir = join(guestsDir, "web1");
  for (const directory of [guestDir, imageDir]) await mkdir(directory, { recursive: true });
  for (const [index, id] of IDS.entries()) await writeFile(sourcePath(id), contentOf(index));
  owner = undefined;
  rests = [];
  listener = await PeerListener.open({
    host: "127.0.0.1",
    port: 0,
    token: null,
    tls: null,
    clock,
    onControl: () => undefined,
    onBulk: () => undefined,
    onPages: () => undefined,
    onStranger: () => undefined,
    onBlocks: (socket) => {
      admitBlocks(socket, clock, () => owner);
    },
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  for (const rest of rests) await rest.close();
  await owner?.abandon();
  await listener.close();
  sockets.close();
  await rm(root, { recursive: true, force: true });
});

const sourcePath = (id: string): string => join(root, `${id}.source`);
const destPath = (id: string): string => join(imageDir, `${id}.raw`);

/** Data, zeros and a last unit that is shorter. */
function contentOf(disk: number): Buffer {
  const content = Buffer.alloc(SIZE);
  for (let unit = 0; unit * UNIT < SIZE; unit += 2 + disk) {
    content.fill(unit + 1, unit * UNIT, Math.min(SIZE, unit * UNIT + UNIT));
  }
  return content;
}

const socketPath = (index: number): string => join(socketDir, `7b1e26d6-${index}`);
const lazyDiskOf = (id: string, index: number): LazyDisk => ({
  ...{ id, index, image: `${id}.raw`, unitBytes: UNIT },
});
const keptOf = (id: string, index: number): KeptDisk => ({
  ...lazyDiskOf(id, index),
  socketPath: socketPath(index),
});

function openSockets(): Promise<HeldSockets> {
  const onTrouble = expect.unreachable;
  // A test that fails leaves no process behind.
  return HeldSockets.open({ directory: socketDir, onTrouble, aloneMsMax: 30_000 });
}

/** Of exports, whoever serves them. */
async function socketsOf(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries.filter((entry) => entry.isSocket()).map(({ name }) => name);
}

/** As an agent that has ended. */
async function leaveHeld(path: string): Promise<void> {
  const earlier = await openSockets();
  const { descriptor, held } = await earlier.listen(path);
  await held;
  closeSync(descriptor);
  earlier.close();
}

async function greeting(path: string): Promise<string> {
  const socket = createConnection(path);
  const [bytes] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  return bytes.toString("latin1", 0, 8);
}

function emptyImage(id: string, migrationId = about.migrationId): Promise<CreatedImage> {
  const mark = { blockBytes: UNIT, migrationId, epoch: about.epoch };
  const place = { directory: imageDir, name: `${id}.raw` };
  return createImage({ ...place, sizeBytes: SIZE, needBytes: 0, mark });
}

/** As a session has them: QEMU could be started. */
async function arriving(): Promise<LazyDisks> {
  const empty = IDS.map(async (id, index) => ({
    disk: lazyDiskOf(id, index),
    created: await emptyImage(id),
  }));
  const offer = { ...about, hashSeed };
  const ports = { clock, logger, sockets, compression: true };
  const disks = LazyDisks.of(await Promise.all(empty), offer, ports);
  await disks.backing.open(guestDir);
  owner = disks;
  return disks;
}

/** What an agent leaves that is killed behind the hand-over. */
async function leftBehind(): Promise<void> {
  await keepDisks(guestDir, { claim: about, hashSeed, disks: IDS.map(keptOf) });
  for (const [index, id] of IDS.entries()) {
    const created = await emptyImage(id);
    const hashes = new DiskHashes({ sizeBytes: SIZE, unitBytes: UNIT, seedHex: hashSeed });
    hashes.leaveOut(0, hashes.units);
    const image = await LazyImage.begin(created, hashes, {
      ...{ id, index, fetcher: new BlockFetcher(clock), compression: true, clock },
      onFailed: () => undefined,
    });
    await image.close();
  }
}

/** What an agent leaves that is killed when nothing is missing any more, and QEMU may not know that. */
async function wholeImage(id: string): Promise<void> {
  const created = await emptyImage(id);
  const hashes = new DiskHashes({ sizeBytes: SIZE, unitBytes: UNIT, seedHex: hashSeed });
  const image = await LazyImage.begin(created, hashes, {
    ...{ id, index: 0, fetcher: new BlockFetcher(clock), compression: true, clock },
    onFailed: () => undefined,
  });
  await image.complete();
  await image.close();
}

/** What the last agent that was started has opened. */
function reopenedBy(opened: {
  readonly mock: { readonly results: readonly { readonly value: unknown }[] };
}): Promise<ReopenedImage> {
  return opened.mock.results.at(-1)!.value as Promise<ReopenedImage>;
}

async function takenUp(): Promise<LazyDisks> {
  const [disks] = await LazyDisks.takeUpAll({ guestsDir, imageDir, clock, logger, sockets });
  owner = disks;
  return disks!;
}

/** A source's agent that knows nothing but what was written down. */
async function serve(logger = SILENT): Promise<DiskRest> {
  const disks = IDS.map((id, index) => ({
    ...{ id, index, path: sourcePath(id), sizeBytes: SIZE, unitBytes: UNIT },
  }));
  await writeLeftDisks(memoryDir, about.migrationId, { epoch: about.epoch, hashSeed, disks });
  const url = `ws://127.0.0.1:${listener.port}`;
  const dialer = new PeerDialer({ url, token: null, tls: null }, clock);
  const common = { memoryDir, about, clock, logger, random: () => 0.5 };
  const rest = await leftDiskRest({ ...common, dialer }).serve();
  rests.push(rest!);
  return rest!;
}

async function expectOrdinaryImages(): Promise<void> {
  for (const [index, id] of IDS.entries()) {
    expect((await readFile(destPath(id))).equals(contentOf(index))).toBe(true);
    const beside = [".vmferry", ".vmferry-present"].map((suffix) => destPath(id) + suffix);
    expect(beside.map(existsSync)).toEqual([false, false]);
  }
  expect(existsSync(join(guestDir, "lazy-disks.json"))).toBe(false);
}

test("all of them comes over one connection, and ordinary images are left", async () => {
  const disks = await arriving();
  await disks.begin();
  const remaining = disks.progress.map(({ remainingBytes }) => remainingBytes);
  expect([remaining, disks.isWhole]).toEqual([[SIZE, SIZE], false]);
  const logged: string[] = [];
  const write = (line: string): void => void logged.push(line);
  const rest = await serve(createLogger({ role: "source", level: "info", stream: { write } }));
  await disks.whole(deadQemu);
  expect(disks.isWhole).toBe(true);
  // The source may hear of the end by that of the connection: nothing was lost.
  await expect.poll(() => logged.join("")).toContain("the dest says that it has all blocks");
  expect(logged.join("")).not.toContain('"level":"warn"');
  await expectOrdinaryImages();
  expect(rest.progress.disks.map(({ remainingBytes }) => remainingBytes)).toEqual([0, 0]);
  expect(rest.progress.wireBytes).toBeGreaterThan(0);
});

test("they are gone on with by the next life of the dest's agent", async () => {
  await leftBehind();
  const disks = await takenUp();
  expect(disks.isOf({ migrationId: "m1", guest: "any" })).toBe(true);
  expect(IDS.map((_, index) => existsSync(socketPath(index)))).toEqual([true, true]);
  await serve();
  await disks.whole(deadQemu);
  await expectOrdinaryImages();
  // The holder's own goes with that process.
  await expect.poll(() => socketsOf(socketDir)).toEqual([]);
});

test("QEMU that came while no agent was there has waited for the next one", async () => {
  await leftBehind();
  await leaveHeld(socketPath(1));
  const greeted = greeting(socketPath(1));
  await takenUp();
  expect(await greeted).toBe("NBDMAGIC");
});

test("sockets that an earlier life left and nobody serves are given up", async () => {
  await leftBehind();
  await leaveHeld(sockets.newPath("0"));
  await takenUp();
  const served = IDS.map((_, index) => `7b1e26d6-${index}`);
  expect((await socketsOf(socketDir)).filter((name) => name !== "holder")).toEqual(served);
});

test("those of an agent that had their sockets beside the guest are served there", async () => {
  await leftBehind();
  const disks = IDS.map(lazyDiskOf);
  const earlier = JSON.stringify({ version: 1, claim: about, hashSeed, disks });
  await writeFile(join(guestDir, "lazy-disks.json"), earlier);
  const taken = await takenUp();
  expect(await socketsOf(guestDir)).toEqual(["lazy-0", "lazy-1"]);
  await serve();
  await taken.whole(deadQemu);
  await expectOrdinaryImages();
  expect(await socketsOf(guestDir)).toEqual([]);
});

test("another source's agent takes the place of one that was killed", async () => {
  const disks = await arriving();
  await disks.begin();
  const first = await serve();
  await first.close();
  await serve();
  await disks.whole(deadQemu);
  await expectOrdinaryImages();
});

test("a hand-over that is not theirs is not admitted", async () => {
  const disks = await arriving();
  const hello = { kind: "blocks-hello", version: 2, ...about, attempt: 1 } as const;
  expect(disks.claimMatches(hello)).toBe(true);
  expect(disks.claimMatches({ ...hello, incarnation: "s2" })).toBe(false);
  expect(disks.claimMatches({ ...hello, epoch: 3 })).toBe(false);
});

test("those that could not be taken up at first come whole all the same", async () => {
  await leftBehind();
  const map = `${destPath("disk1")}.vmferry-present`;
  await rename(map, `${map}.away`);
  const disks = await takenUp();
  expect(disks.lost).toMatchObject({ code: "dest-disk-failed" });
  await serve();
  const whole = disks.whole(deadQemu);
  await expect.poll(() => existsSync(`${destPath("disk0")}.vmferry`)).toBe(false);
  expect(disks.isWhole).toBe(false);
  await rename(`${map}.away`, map);
  await whole;
  expect(disks.isWhole).toBe(true);
  await expectOrdinaryImages();
});

test("a flush that failed succeeds with no later agent, and QEMU stays behind it as long as it lives", async () => {
  await keepDisks(guestDir, { claim: about, hashSeed, disks: [keptOf("disk0", 0)] });
  await wholeImage("disk0");
  const opened = vi.spyOn(ReopenedImage, "open");
  const first = await takenUp();
  vi.spyOn(ImageDurability.prototype, "flush").mockImplementationOnce(function (
    this: ImageDurability,
  ) {
    this.storageFailed();
    return Promise.reject(new Error("EIO"));
  });
  await expect((await reopenedBy(opened)).flush()).rejects.toThrow("EIO");
  await first.abandon();
  await keepDisks(guestDir, { claim: about, hashSeed, disks: [keptOf("disk0", 0)] });

  const disks = await takenUp();
  await expect((await reopenedBy(opened)).flush()).rejects.toThrow("failed to store data before");
  const told: string[] = [];
  disks.onFailed = (error) => told.push(messageOf(error));
  let lives = true;
  const qmp = { execute: expect.unreachable } as unknown as QmpClient;
  const whole = disks.whole({ qmp, isAlive: () => lives });
  await expect.poll(() => told).toEqual([expect.stringContaining("start the guest anew")]);
  expect(disks.isWhole).toBe(false);
  lives = false;
  await whole;
  expect(disks.isWhole).toBe(true);
  const beside = [".vmferry", ".vmferry-present"].map((suffix) => destPath("disk0") + suffix);
  expect(beside.map(existsSync)).toEqual([false, false]);
});

test("one that fails while QEMU is to get its image keeps it where it is", async () => {
  await keepDisks(guestDir, { claim: about, hashSeed, disks: [keptOf("disk0", 0)] });
  await wholeImage("disk0");
  const opened = vi.spyOn(ReopenedImage, "open");
  const disks = await takenUp();
  const image = await reopenedBy(opened);
  const commands: string[] = [];
  const told: string[] = [];
  disks.onFailed = (error) => told.push(messageOf(error));
  let lives = true;
  const execute = (command: string): Promise<never> => {
    commands.push(command);
    vi.spyOn(image, "isSuspect", "get").mockReturnValue(true);
    return Promise.reject(new Error("the node could not be flushed"));
  };
  const qmp = { execute } as unknown as QmpClient;
  const whole = disks.whole({ qmp, isAlive: () => lives });
  await expect.poll(() => told).toEqual([expect.stringContaining("start the guest anew")]);
  lives = false;
  await whole;
  expect(commands).toHaveLength(1);
});

test("an image that belongs to another migration by now is left alone", async () => {
  await keepDisks(guestDir, { claim: about, hashSeed, disks: [keptOf("disk0", 0)] });
  const other = await emptyImage("disk0", "m2");
  const disks = await takenUp();
  expect(existsSync(socketPath(0))).toBe(false);
  await disks.whole(deadQemu);
  expect(existsSync(`${destPath("disk0")}.vmferry`)).toBe(true);
  await other.image.close();
});

test("a guest that is refused leaves nothing that is served or written down", async () => {
  const disks = await arriving();
  await disks.begin();
  expect(await socketsOf(socketDir)).toHaveLength(IDS.length + 1);
  await disks.abandon();
  expect(existsSync(join(guestDir, "lazy-disks.json"))).toBe(false);
  await expect.poll(() => socketsOf(socketDir)).toEqual([]);
});

test("an image that was written to since the guest left it is not served", async () => {
  const left = {
    id: "disk0",
    index: 0,
    path: sourcePath("disk0"),
    sizeBytes: SIZE,
    unitBytes: UNIT,
  };
  const disks = [{ ...left, writtenAtNs: "1" }];
  await writeLeftDisks(memoryDir, about.migrationId, { epoch: about.epoch, hashSeed, disks });
  const dialer = { blocks: () => Promise.reject(new Error("nobody is to be dialled")) };
  const common = { memoryDir, about, clock, logger, random: () => 0.5 };
  await expect(leftDiskRest({ ...common, dialer }).serve()).rejects.toThrow("was written to at");
});

test("what the source has written down is of its own hand-over alone", async () => {
  await serve();
  expect(await readLeftDisks(memoryDir, "m2")).toBe(null);
  const common = { memoryDir, clock, logger, random: () => 0.5 };
  const later = leftDiskRest({ ...common, about: { ...about, epoch: 3 }, dialer: null });
  expect(await later.serve()).toBe(null);
  await later.discard();
  expect(await readLeftDisks(memoryDir, "m1")).toBe(null);
});

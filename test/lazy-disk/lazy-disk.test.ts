// A guest between two real QEMUs whose 4 GiB disk stays behind at first: it runs at the dest on an
// export of the dest's part, which fetches over a WebSocket what the guest and time ask for, and at the
// end the guest's QEMU has its image for itself.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ImageFile } from "@vmferry/block";
import { systemClock } from "@vmferry/core";
import { launchGuest, type GuestDefinition, type GuestProcess } from "@vmferry/qemu";
import { GUEST_CACHE, GuestConsole, judgeHandOver, writeDiskImage } from "@vmferry/testkit";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import { PeerDialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";
import {
  serveBlocks,
  type BlockServing,
} from "../../packages/source-agent/src/disk/serve-blocks.ts";
import { LazyExport } from "../../packages/dest-agent/src/adapters/lazy-export.ts";
import { pause } from "../moving-guest.ts";
import { DestPart, DISK_ID, HASH_SEED, UNIT_BYTES, type DestPartOptions } from "./dest-part.ts";

const WAIT_MS = 90_000;
const POLL_MS = 5;
const DISK_BYTES = 4 * 2 ** 30;
/** The guest has 2^18 slots, with a record at the beginning of each. */
const SLOT_BYTES = DISK_BYTES / 2 ** 18;
const RECORD_BYTES = 4096;
const IMAGE = "lazy.raw";
/** So that the guest runs for some seconds before its disk is whole. */
const SLOWLY = 4 * 2 ** 20;
/** On an idle host it is 0.4 s. */
const RUNNING_MS_MAX = 3000;

const GUEST: GuestDefinition = {
  name: "lazy",
  machine: "pc-q35-10.0",
  accel: "tcg",
  cpu: "qemu64",
  vcpus: 1,
  memoryBytes: 160 * 2 ** 20,
  boot: {
    kernel: "vmlinuz",
    initrd: "initrd.img",
    cmdline:
      "console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check vmferry.mem=32M vmferry.rate=500 " +
      "vmferry.diskrate=150 vmferry.disktrim=10 vmferry.diskfill=1 vmferry.disksweep=8",
  },
  disks: [{ id: DISK_ID, image: IMAGE, format: "raw", mode: "copy" }],
  serial: "file",
};

interface Machine {
  readonly guest: GuestProcess;
  readonly console: GuestConsole;
}

let directory: string;
let options: DestPartOptions;
const machines: Machine[] = [];
const cleanUps: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-lazy-"));
  for (const side of ["source-images", "dest-images"]) {
    await mkdir(join(directory, side));
    for (const file of ["vmlinuz", "initrd.img"]) {
      await copyFile(join(GUEST_CACHE, file), join(directory, side, file));
    }
  }
  await writeDiskImage(sourceImage(), DISK_BYTES, { fill: 0.05 });
  options = {
    imageDirectory: join(directory, "dest-images"),
    image: IMAGE,
    sizeBytes: DISK_BYTES,
    socketPath: join(directory, "disk0.sock"),
  };
});

afterEach(async () => {
  for (const { guest, console } of machines.splice(0)) {
    console.close();
    if (!guest.hasExited) await guest.kill();
  }
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
  await rm(directory, { recursive: true, force: true });
});

const sourceImage = (): string => join(directory, "source-images", IMAGE);
const destImage = (): string => join(directory, "dest-images", IMAGE);

async function start(side: "source" | "dest"): Promise<Machine> {
  const backing = LazyExport.backing({ diskId: DISK_ID, socketPath: options.socketPath });
  const guest = await launchGuest({
    binary: process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64",
    definition: GUEST,
    directory: join(directory, side),
    imageDirectory: join(directory, `${side}-images`),
    incoming: side === "dest",
    timeoutMs: WAIT_MS,
    ...(side === "dest" ? { diskBackings: new Map([[DISK_ID, backing]]) } : {}),
  });
  const console = GuestConsole.open(guest.paths.serialLog, { clock: systemClock });
  const machine = { guest, console };
  machines.push(machine);
  return machine;
}

/** The guest's memory by a plain migration from QEMU to QEMU; both stand still afterwards. */
async function moveMemory(source: Machine, dest: Machine): Promise<void> {
  const uri = `unix:${join(directory, "memory.sock")}`;
  const capabilities = (["return-path", "events", "late-block-activate"] as const).map(
    (capability) => ({ capability, state: true }),
  );
  for (const { guest } of [source, dest]) {
    await guest.qmp.execute("migrate-set-capabilities", { capabilities });
  }
  await dest.guest.qmp.execute("migrate-incoming", { uri, "exit-on-error": false });
  await source.guest.qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 30 });
  await source.guest.qmp.execute("migrate", { uri });
  for (const { guest } of [source, dest]) {
    await expect
      .poll(async () => (await guest.qmp.execute("query-migrate")).status, {
        timeout: WAIT_MS,
        interval: POLL_MS,
      })
      .toBe("completed");
  }
}

/** A source's agent that knows nothing but the image, which is not written to any more. */
async function serve(port: number, bytesPerSecond: number | null): Promise<BlockServing> {
  const image = await ImageFile.open(sourceImage(), { readOnly: true });
  const hashes = new DiskHashes({
    sizeBytes: DISK_BYTES,
    unitBytes: UNIT_BYTES,
    seedHex: HASH_SEED,
  });
  hashes.leaveOut(0, hashes.units);
  const dialer = new PeerDialer(
    { url: `ws://127.0.0.1:${port}`, token: null, tls: null },
    systemClock,
  );
  const about = { migrationId: "lazy-test", epoch: 2, generation: 1, incarnation: "s1" };
  const hello = { kind: "blocks-hello", version: 2, ...about, attempt: 1 } as const;
  const lane = await dialer.blocks(hello, AbortSignal.timeout(WAIT_MS));
  const serving = serveBlocks(lane, {
    disks: [{ image, hashes, remaining: { units: hashes.units } }],
    compression: true,
    bandwidthBytesPerSecond: bytesPerSecond,
    clock: systemClock,
  });
  cleanUps.push(async () => {
    serving.close();
    await image.close();
  });
  return serving;
}

async function begin(part: DestPart): Promise<void> {
  const created = await DestPart.createImage(options);
  await part.begin(created);
}

async function openPart(): Promise<DestPart> {
  const part = await DestPart.open(options);
  cleanUps.push(async () => {
    part.awaited.abandon(new Error("the test is over"));
    await part.export.close();
    await part.listener.close();
  });
  return part;
}

/** The disk's nodes, and which file or socket the guest's device stands on. */
async function nodesOf({ guest }: Machine): Promise<Record<string, string>> {
  const nodes = await guest.qmp.execute("query-named-block-nodes", { flat: true });
  return Object.fromEntries(nodes.map(({ nodeName, filename }) => [nodeName, filename]));
}

async function expectFullCheck({ console }: Machine): Promise<void> {
  await console.waitFor(({ latestReport }) => latestReport !== null, { timeoutMs: WAIT_MS });
  const { diskSweeps } = console.latestReport!;
  await console.waitFor(({ latestReport }) => latestReport!.diskSweeps >= diskSweeps + 2, {
    timeoutMs: WAIT_MS,
  });
  expect(console.errors).toEqual([]);
  expect(console.latestReport).toMatchObject({ errors: 0, diskErrors: 0, ioErrors: 0 });
}

/** Everywhere between the guest's records both images hold the same. */
async function expectSameDisks(): Promise<number> {
  const [source, dest] = await Promise.all(
    [sourceImage(), destImage()].map((path) => ImageFile.open(path, { readOnly: true })),
  );
  let compared = 0;
  for (let at = 0; at < DISK_BYTES;) {
    const [a, b] = await Promise.all([source!, dest!].map((each) => hole(each, at)));
    const bothEmpty = Math.min(a!, b!);
    if (bothEmpty >= SLOT_BYTES) {
      at += Math.floor(bothEmpty / SLOT_BYTES) * SLOT_BYTES;
      continue;
    }
    const range = [at + RECORD_BYTES, SLOT_BYTES - RECORD_BYTES] as const;
    const [left, right] = await Promise.all([source!.read(...range), dest!.read(...range)]);
    if (!left.equals(right)) throw new Error(`the disks differ behind ${at}`);
    compared += 1;
    at += SLOT_BYTES;
  }
  await Promise.all([source!.close(), dest!.close()]);
  return compared;
}

async function hole(image: ImageFile, at: number): Promise<number> {
  const [extent] = await image.extents(at, DISK_BYTES - at);
  return extent?.kind === "zero" ? extent.length : 0;
}

describe("a lazy disk", () => {
  it("lets its guest run at once, comes behind, and leaves nothing of the agent", async () => {
    const source = await start("source");
    await source.console.waitFor(({ latestReport }) => (latestReport?.diskWrites ?? 0) > 100, {
      timeoutMs: WAIT_MS,
    });
    const part = await openPart();
    const dest = await start("dest");
    const startedMs = performance.now();
    await moveMemory(source, dest);
    await begin(part);
    const serving = await serve(part.listener.port, SLOWLY);
    await dest.guest.qmp.execute("cont");
    const runningMs = performance.now() - startedMs;
    const { disk } = part.lazy;
    const remainingMib = disk.remainingBytes / 2 ** 20;
    process.stdout.write(
      `running after ${runningMs.toFixed(0)} ms, with ${remainingMib.toFixed(0)} MiB missing\n`,
    );
    expect(runningMs).toBeLessThan(RUNNING_MS_MAX);
    expect(remainingMib).toBeGreaterThan(3500);

    await expectFullCheck(dest);
    expect(disk.remainingBytes).toBeGreaterThan(0);
    serving.server.setBandwidth(null);
    await disk.whole;
    process.stdout.write(`whole after ${(performance.now() - startedMs).toFixed(0)} ms\n`);
    part.fetcher.end(0, disk.end());
    expect(await disk.equal).toBe(true);

    const { lazy } = part;
    expect(await nodesOf(dest)).toMatchObject({ "disk0-nbd": expect.any(String) as string });
    await lazy.complete();
    await part.export.leave({
      qmp: dest.guest.qmp,
      image: lazy.image,
      unlock: () => lazy.unlock(),
    });
    await lazy.forget();
    expect(await nodesOf(dest)).toEqual({ disk0: destImage(), "disk0-file": destImage() });
    expect([`${destImage()}.vmferry`, `${destImage()}.vmferry-present`].map(existsSync)).toEqual([
      false,
      false,
    ]);
    await expectFullCheck(dest);
    source.console.poll();
    const verdict = judgeHandOver({
      sourceLines: source.console.lines,
      destLines: dest.console.lines,
    });
    expect(verdict.findings).toEqual([]);
    await dest.guest.kill();
    expect(await expectSameDisks()).toBeGreaterThan(10_000);
  });

  it("is gone on with after its agent was killed, and after the source's was", async () => {
    const source = await start("source");
    await source.console.waitFor(({ latestReport }) => (latestReport?.diskWrites ?? 0) > 100, {
      timeoutMs: WAIT_MS,
    });
    const { child, port, begun } = await startDestPart();
    const dest = await start("dest");
    await moveMemory(source, dest);
    child.stdin!.write("begin\n");
    await begun;
    await serve(port, SLOWLY);
    await dest.guest.qmp.execute("cont");
    await dest.console.waitFor(({ latestReport }) => (latestReport?.diskWrites ?? 0) > 0, {
      timeoutMs: WAIT_MS,
    });
    const { diskWrites } = dest.console.latestReport!;
    await dest.console.waitFor(({ latestReport: now }) => now!.diskWrites > diskWrites + 200, {
      timeoutMs: WAIT_MS,
    });
    child.kill("SIGKILL");
    await once(child, "exit");
    await pause(300);

    const part = await openPart();
    await part.takeUp(options);
    const { disk } = part.lazy;
    expect(disk.remainingBytes).toBeGreaterThan(0);
    expect(disk.remainingBytes).toBeLessThan(DISK_BYTES);
    const first = await serve(part.listener.port, SLOWLY);
    await expect.poll(() => first.server.sentBytes, { timeout: WAIT_MS }).toBeGreaterThan(2 ** 22);
    // A source's agent that is killed leaves a broken link, and the next one knows nothing.
    first.close();
    await serve(part.listener.port, null);
    await disk.whole;
    part.fetcher.end(0, disk.end());
    expect(await disk.equal).toBe(true);
    const { lazy } = part;
    await lazy.complete();
    const { qmp } = dest.guest;
    await part.export.leave({ qmp, image: lazy.image, unlock: () => lazy.unlock() });
    await lazy.forget();
    expect(await nodesOf(dest)).toEqual({ disk0: destImage(), "disk0-file": destImage() });
    await expectFullCheck(dest);
    await dest.guest.kill();
    expect(await expectSameDisks()).toBeGreaterThan(10_000);
  });
});

async function startDestPart(): Promise<{
  child: ChildProcess;
  port: number;
  begun: Promise<void>;
}> {
  const { imageDirectory, image, sizeBytes, socketPath } = options;
  const program = join(import.meta.dirname, "dest-part.ts");
  const child = spawn(
    process.execPath,
    [program, imageDirectory, image, String(sizeBytes), socketPath],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  cleanUps.push(() => Promise.resolve(child.kill("SIGKILL")));
  const lines = createInterface(child.stdout);
  const next = async (word: string): Promise<string> => {
    for (;;) {
      const [line] = (await once(lines, "line")) as [string];
      if (line.startsWith(`${word} `)) return line.slice(word.length + 1);
    }
  };
  const port = Number(await next("port"));
  return { child, port, begun: next("began").then(() => undefined) };
}

// Post-copy between two real QEMUs, through the codec at both ends, in the order that
// docs/postcopy.md arrives at: the guest is stopped before post-copy begins, nothing runs at the
// dest before it has loaded the package, and SHUT is the last word.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "@vmferry/core";
import {
  launchGuest,
  type GuestDefinition,
  type GuestProcess,
  type MigrationCapability,
  type MigrationStatus,
} from "@vmferry/qemu";
import { GUEST_CACHE, GuestConsole, judgeHandOver } from "@vmferry/testkit";
import { pause } from "../moving-guest.ts";
import { PostcopyBridge, type BridgeOptions } from "../postcopy-bridge.ts";

const WAIT_MS = 60_000;
const POLL_MS = 5;
/** Slow enough that most of memory is missing at the switch-over. */
const PRECOPY_BYTES_PER_SECOND = 24 * 2 ** 20;
/** And still when the guest runs. */
const POSTCOPY_BYTES_PER_SECOND = 8 * 2 ** 20;

const GUEST: GuestDefinition = {
  name: "postcopy",
  machine: "pc-q35-10.0",
  accel: "tcg",
  cpu: "qemu64",
  vcpus: 1,
  memoryBytes: 192 * 2 ** 20,
  boot: {
    kernel: "vmlinuz",
    initrd: "initrd.img",
    cmdline:
      "console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check vmferry.mem=96M vmferry.rate=4000 vmferry.hot=50:10",
  },
  disks: [],
  serial: "file",
};

let directory: string;
const machines: Machine[] = [];
const bridges: PostcopyBridge[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-postcopy-"));
});

afterEach(async () => {
  for (const bridge of bridges.splice(0)) bridge.close();
  for (const { guest, console } of machines.splice(0)) {
    console.close();
    if (!guest.hasExited) await guest.kill();
  }
  await rm(directory, { recursive: true, force: true });
});

interface Machine {
  readonly guest: GuestProcess;
  readonly console: GuestConsole;
}

async function start(name: string, incoming: boolean): Promise<Machine> {
  const guest = await launchGuest({
    binary: process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64",
    definition: GUEST,
    directory: join(directory, name),
    imageDirectory: GUEST_CACHE,
    incoming,
    timeoutMs: WAIT_MS,
  });
  const machine = {
    guest,
    console: GuestConsole.open(guest.paths.serialLog, { clock: systemClock }),
  };
  machines.push(machine);
  return machine;
}

async function setCapabilities(
  { guest }: Machine,
  ...names: readonly MigrationCapability[]
): Promise<void> {
  await guest.qmp.execute("migrate-set-capabilities", {
    capabilities: names.map((capability) => ({ capability, state: true })),
  });
}

async function listenAt(machine: Machine, name: string, preempt: boolean): Promise<string> {
  const path = join(directory, name);
  await setCapabilities(machine, "return-path", "events", "late-block-activate", "postcopy-ram");
  if (preempt) await setCapabilities(machine, "postcopy-preempt");
  await machine.guest.qmp.execute("migrate-incoming", {
    uri: `unix:${path}`,
    "exit-on-error": false,
  });
  return path;
}

async function openBridge(
  destSocket: string,
  takesUp?: NonNullable<BridgeOptions["takesUp"]>,
): Promise<PostcopyBridge> {
  const bridge = await PostcopyBridge.open({
    sourceSocket: join(directory, `source${bridges.length}.sock`),
    destSocket,
    ...(takesUp === undefined ? {} : { takesUp }),
  });
  bridges.push(bridge);
  bridge.shut.promise.catch(() => undefined);
  return bridge;
}

function uriOf(bridge: PostcopyBridge): string {
  return `unix:${join(directory, `source${bridges.indexOf(bridge)}.sock`)}`;
}

async function until({ guest }: Machine, ...wanted: readonly MigrationStatus[]): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  for (;;) {
    const { status, errorDescription } = await guest.qmp.execute("query-migrate");
    if (wanted.includes(status)) return;
    const said = `migration is ${status}: ${errorDescription ?? "no reason"}`;
    if (performance.now() > deadline) throw new Error(`${said}; waited for ${wanted.join()}`);
    await pause(POLL_MS);
  }
}

async function statusOf({ guest }: Machine): Promise<string> {
  return (await guest.qmp.execute("query-status")).status;
}

/** A source with a busy guest, and a dest that has its package and stands still. */
async function switchOver(preempt: boolean): Promise<{
  source: Machine;
  dest: Machine;
  bridge: PostcopyBridge;
}> {
  const source = await start("source", false);
  await source.console.waitFor(({ latestReport }) => latestReport !== null, { timeoutMs: WAIT_MS });
  await setCapabilities(source, "return-path", "events", "pause-before-switchover", "postcopy-ram");
  if (preempt) await setCapabilities(source, "postcopy-preempt");
  const dest = await start("dest", true);
  const bridge = await openBridge(await listenAt(dest, "dest.sock", preempt));
  const { qmp } = source.guest;
  await qmp.execute("migrate-set-parameters", {
    "max-bandwidth": PRECOPY_BYTES_PER_SECOND,
    "max-postcopy-bandwidth": POSTCOPY_BYTES_PER_SECOND,
    "downtime-limit": 1,
  });
  await qmp.execute("migrate", { uri: uriOf(bridge) });
  await until(source, "active");
  await pause(1500);
  await qmp.execute("stop");
  await qmp.execute("migrate-start-postcopy");
  await until(source, "pre-switchover");
  await qmp.execute("migrate-continue", { state: "pre-switchover" });
  await until(source, "postcopy-active");
  await expect.poll(() => bridge.pongs, { timeout: WAIT_MS, interval: POLL_MS }).toContain(3);
  await expect.poll(() => statusOf(dest), { timeout: WAIT_MS }).toBe("paused");
  return { source, dest, bridge };
}

/** What is missing comes as fast as it can. */
async function liftLimit({ guest }: Machine): Promise<void> {
  await guest.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
}

/** The guest works at the dest, has verified all of its memory there, and missed nothing. */
async function expectWhole(source: Machine, dest: Machine): Promise<void> {
  await dest.console.waitFor(({ latestReport }) => latestReport !== null, { timeoutMs: WAIT_MS });
  const { sweeps } = dest.console.latestReport!;
  await dest.console.waitFor(({ latestReport }) => latestReport!.sweeps >= sweeps + 2, {
    timeoutMs: WAIT_MS,
  });
  source.console.poll();
  const verdict = judgeHandOver({
    sourceLines: source.console.lines,
    destLines: dest.console.lines,
  });
  expect(verdict.findings).toEqual([]);
  expect(dest.console.latestReport).toMatchObject({ errors: 0 });
}

describe("post-copy through the codec", () => {
  it.each([
    ["one connection", false],
    ["a second connection for requested pages", true],
  ])("over %s brings every page once, and the guest finds them right", async (_what, preempt) => {
    const { source, dest, bridge } = await switchOver(preempt);
    expect(await statusOf(source)).toBe("finish-migrate");
    await dest.guest.qmp.execute("cont");
    expect(await bridge.shut.promise).toBe(0);
    await until(source, "completed");
    await until(dest, "completed");
    await expectWhole(source, dest);
    expect(bridge.counts.twice).toBe(0);
    expect(bridge.counts.main).toBeGreaterThan(1000);
    expect(bridge.answeredMs.length).toBeGreaterThan(0);
    if (preempt) expect(bridge.counts.requested).toBeGreaterThan(0);
    else expect(bridge.counts.requested).toBe(0);
    expect(await statusOf(source)).not.toBe("running");
  });

  it("goes on over new connections after both were cut, before the guest runs", async () => {
    const { source, dest, bridge } = await switchOver(false);
    bridge.close();
    await until(source, "postcopy-paused");
    await liftLimit(source);
    await until(dest, "postcopy-paused");
    const destSocket = join(directory, "again.sock");
    await dest.guest.qmp.execute("migrate-recover", { uri: `unix:${destSocket}` });
    const second = await openBridge(destSocket, { bridge, freshDest: false });
    await source.guest.qmp.execute("migrate", { uri: uriOf(second), resume: true });
    await until(source, "postcopy-active", "completed");
    await dest.guest.qmp.execute("cont");
    expect(await second.shut.promise).toBe(0);
    await until(source, "completed");
    await expectWhole(source, dest);
    expect(second.counts.twice).toBe(0);
  });

  it("gives the guest to a fresh QEMU when the one that had loaded it dies before it ran", async () => {
    const { source, dest, bridge } = await switchOver(false);
    await dest.guest.kill();
    bridge.close();
    await until(source, "postcopy-paused");
    await liftLimit(source);
    const other = await start("other", true);
    const destSocket = await listenAt(other, "other.sock", false);
    const second = await openBridge(destSocket, { bridge, freshDest: true });
    await source.guest.qmp.execute("migrate", { uri: uriOf(second), resume: true });
    await until(source, "postcopy-active", "completed");
    await expect.poll(() => second.pongs, { timeout: WAIT_MS, interval: POLL_MS }).toContain(3);
    await other.guest.qmp.execute("cont");
    expect(await second.shut.promise).toBe(0);
    await until(source, "completed");
    await expectWhole(source, other);
    expect(second.counts).toMatchObject({
      main: second.section.blocks.reduce((pages, { lengthBytes }) => pages + lengthBytes / 4096, 0),
      twice: 0,
    });
  });

  it("leaves a guest that stands still when its source is left without SHUT", async () => {
    const { source, dest, bridge } = await switchOver(false);
    await liftLimit(source);
    // The dest has everything and would say so; its last word does not come.
    await until(dest, "completed");
    bridge.close();
    await until(source, "failed", "completed");
    expect(await statusOf(source)).not.toBe("running");
    await dest.guest.qmp.execute("cont");
    await expectWhole(source, dest);
  });
});

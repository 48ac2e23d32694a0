// The demo guest as the oracle of all other tests: it says nothing where nothing is wrong, and
// damage that is planted on purpose does not escape it.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "@vmferry/core";
import { QmpClient } from "@vmferry/qemu";
import { GuestConsole } from "./guest-console.ts";
import { judgeHandOver } from "./judge-hand-over.ts";
import { GUEST_CACHE } from "./lab.ts";

const QEMU = process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64";
const DISK_BYTES = 64 * 2 ** 20;
const BOOT = { timeoutMs: 90_000 };
const SOON = { timeoutMs: 30_000 };

let directory = "";
const processes: ChildProcess[] = [];
const consoles: GuestConsole[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "vmferry-oracle-"));
  const disk = openSync(join(directory, "disk.raw"), "w");
  ftruncateSync(disk, DISK_BYTES);
  closeSync(disk);
});

afterEach(async () => {
  for (const guestConsole of consoles.splice(0)) guestConsole.close();
  for (const child of processes.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  rmSync(directory, { recursive: true });
});

/** Starts a QEMU with the demo guest; `name` keeps the files of several apart. */
function startGuest(parameters: string, name: string, more: readonly string[] = []): GuestConsole {
  const file = (suffix: string): string => join(directory, `${name}.${suffix}`);
  const disk = `driver=raw,node-name=disk0,file.driver=file,file.locking=off,file.filename=`;
  const child = spawn(
    QEMU,
    [
      ...["-machine", "pc-q35-10.0,accel=tcg", "-cpu", "qemu64", "-m", "160M"],
      ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
      ...["-kernel", join(GUEST_CACHE, "vmlinuz"), "-initrd", join(GUEST_CACHE, "initrd.img")],
      ...["-append", `console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check ${parameters}`],
      ...["-serial", `file:${file("serial")}`, "-qmp", `unix:${file("qmp")},server=on,wait=off`],
      ...["-blockdev", disk + join(directory, "disk.raw")],
      ...["-device", "virtio-blk-pci,drive=disk0", ...more],
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  processes.push(child);
  const guestConsole = GuestConsole.open(file("serial"), { clock: systemClock });
  consoles.push(guestConsole);
  return guestConsole;
}

/** Waits until every page and every record was checked once more, from whatever is now. */
async function waitForFullCheck(guestConsole: GuestConsole): Promise<void> {
  const before = guestConsole.latestReport;
  await guestConsole.waitFor(({ latestReport: now }) => {
    const sweeps = (now?.sweeps ?? 0) - (before?.sweeps ?? 0);
    const diskSweeps = (now?.diskSweeps ?? 0) - (before?.diskSweeps ?? 0);
    return sweeps >= 2 && diskSweeps >= 2;
  }, SOON);
}

describe("the demo guest", () => {
  it("works on memory and disk and finds nothing wrong where nothing is", async () => {
    const guest = startGuest("vmferry.mem=48M vmferry.rate=1000 vmferry.diskrate=100", "guest");
    await guest.waitFor(({ ready }) => ready !== null, BOOT);
    expect(guest.ready?.get("pages")).toBe(String((48 * 2 ** 20) / 4096));
    await waitForFullCheck(guest);
    const report = guest.latestReport;
    expect(report).toMatchObject({ errors: 0, diskErrors: 0, ioErrors: 0 });
    expect(report?.writes).toBeGreaterThan(0);
    expect(report?.diskWrites).toBeGreaterThan(0);
    expect([...guest.errors, ...guest.kernelComplaints]).toEqual([]);
  });

  it("finds nothing wrong with records of many sizes that are trimmed and zeroed", async () => {
    const parameters = "diskbytes=512-64K diskthreads=4 diskrate=400 diskfill=50 diskhot=50:5";
    const words = [...parameters.split(" "), "mem=32M", "disktrim=20", "disksweep=8"];
    const guest = startGuest(words.map((word) => `vmferry.${word}`).join(" "), "guest");
    await guest.waitFor(({ latestReport }) => (latestReport?.diskTrims ?? 0) > 100, BOOT);
    await waitForFullCheck(guest);
    expect(guest.latestReport).toMatchObject({ errors: 0, diskErrors: 0, ioErrors: 0 });
    expect(guest.ready?.get("diskbytes")).toBe("512-65536");
    const latencies = guest.reports.filter(({ diskP50Us, diskP99Us }) => {
      return diskP50Us > 0 && diskP99Us >= diskP50Us;
    });
    expect(latencies.length).toBeGreaterThan(0);
    expect([...guest.errors, ...guest.kernelComplaints]).toEqual([]);
  });

  it("leaves the disk alone once it has written as often as it should", async () => {
    const parameters = "diskrate=max diskthreads=2 diskwrites=1000 disktrim=10 mem=32M rate=0";
    const words = parameters.split(" ").map((word) => `vmferry.${word}`);
    const guest = startGuest(words.join(" "), "guest");
    const done = ({ latestReport }: GuestConsole): number =>
      (latestReport?.diskWrites ?? 0) + (latestReport?.diskTrims ?? 0);
    await guest.waitFor((is) => done(is) >= 1000, BOOT);
    await waitForFullCheck(guest);
    expect(done(guest)).toBe(1000);
    expect(guest.latestReport).toMatchObject({ diskErrors: 0, ioErrors: 0, diskP50Us: 0 });
  });

  it.each([
    ["stale", "vmferry.bytes=64", /^VF ERROR memory page=\d+ cell=\d+ kind=stale .* badcells=1$/],
    ["corrupt", "", /^VF ERROR memory page=\d+ cell=0 kind=corrupt .* badcells=1$/],
    ["disk", "vmferry.diskrate=200", /^VF ERROR disk slot=\d+ cell=0 kind=stale /],
    ["zeroes", "vmferry.diskrate=200", /^VF ERROR disk slot=\d+ cell=0 kind=stale expected=0 /],
  ])("finds a planted damage: %s", async (plant, parameters, expected) => {
    const guest = startGuest(`vmferry.mem=48M vmferry.plant=${plant} ${parameters}`, "guest");
    await guest.waitFor(({ errors }) => errors.length > 0, BOOT);
    expect(guest.errors).toEqual([expect.stringMatching(expected)]);
    const total = ({ latestReport }: GuestConsole): number =>
      (latestReport?.errors ?? 0) + (latestReport?.diskErrors ?? 0);
    await guest.waitFor((is) => total(is) > 0, SOON);
    expect(total(guest)).toBe(1);
  });

  it("lets a panic of its kernel be seen", async () => {
    const guest = startGuest("vmferry.mem=48M vmferry.plant=panic", "guest");
    await guest.waitFor(({ kernelComplaints }) => kernelComplaints.length > 0, BOOT);
    expect(guest.kernelComplaints.join("\n")).toContain("Kernel panic");
  });

  it("refuses a parameter that it does not know, and powers off", async () => {
    const guest = startGuest("vmferry.men=48M", "guest");
    await guest.waitFor(({ errors }) => errors.length > 0, BOOT);
    expect(guest.errors[0]).toBe("VF ERROR vmferry.men is not a parameter");
    await expect.poll(() => processes[0]?.exitCode, { timeout: 30_000 }).toBe(0);
  });

  it("is still whole after QEMU's own migration, and the judge agrees", async () => {
    const parameters = "vmferry.mem=64M vmferry.rate=5000 vmferry.diskrate=100";
    const socket = `unix:${join(directory, "migration")}`;
    const source = startGuest(parameters, "source");
    const dest = startGuest(parameters, "dest", ["-incoming", socket]);
    await source.waitFor(({ latestReport }) => (latestReport?.diskSweeps ?? 0) > 0, BOOT);
    await expect
      .poll(() => existsSync(join(directory, "migration")), { timeout: 30_000 })
      .toBe(true);
    const qmp = await QmpClient.connect({ path: join(directory, "source.qmp"), timeoutMs: 10_000 });
    await qmp.execute("migrate", { uri: socket });
    await dest.waitFor(({ latestReport }) => latestReport !== null, SOON);
    await waitForFullCheck(dest);
    await qmp.close();
    const verdict = judgeHandOver({ sourceLines: source.lines, destLines: dest.lines });
    expect(verdict.findings).toEqual([]);
    expect(verdict.silenceMs).toBeGreaterThan(0);
  });
});

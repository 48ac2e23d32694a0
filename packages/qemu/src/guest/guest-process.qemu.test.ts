import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, mkdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { migrationStatusOf } from "../qmp/qmp-event.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";
import { adoptGuest } from "./adopt-guest.ts";
import type { GuestDefinition } from "./guest-definition.ts";
import type { GuestIdentity, GuestProcess } from "./guest-process.ts";
import { launchGuest, type LaunchGuestOptions } from "./launch-guest.ts";
import { isSameProcess, readProcStat } from "./proc-stat.ts";

const QEMU = process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64";
const START_TIMEOUT_MS = 60_000;

const definition: GuestDefinition = {
  name: "web1",
  machine: "pc-q35-7.2",
  accel: "auto",
  cpu: "qemu64",
  vcpus: 1,
  memoryBytes: 64 * 2 ** 20,
  disks: [{ id: "disk0", image: "disk0.raw", format: "raw", mode: "copy" }],
  serial: "file",
  uuid: "11111111-2222-3333-4444-555555555555",
};

let root: string;
let imageDirectory: string;
let guests: GuestIdentity[];

beforeEach(async () => {
  guests = [];
  root = await mkdtemp(join(tmpdir(), "guest-"));
  imageDirectory = join(root, "images");
  await mkdir(imageDirectory);
  await makeImage("disk0.raw");
});

afterEach(async () => {
  for (const { pid, startTicks } of guests) {
    if (isSameProcess(pid, startTicks)) process.kill(pid, "SIGKILL");
    await expect.poll(() => isSameProcess(pid, startTicks), { timeout: 10_000 }).toBe(false);
  }
  await rm(root, { recursive: true });
});

async function makeImage(name: string): Promise<void> {
  await writeFile(join(imageDirectory, name), "");
  await truncate(join(imageDirectory, name), 2 ** 20);
}

function options(changes: Partial<LaunchGuestOptions> = {}): LaunchGuestOptions {
  return {
    binary: QEMU,
    definition,
    directory: join(root, "web1"),
    imageDirectory,
    incoming: false,
    timeoutMs: START_TIMEOUT_MS,
    ...changes,
  };
}

async function launch(changes: Partial<LaunchGuestOptions> = {}): Promise<GuestProcess> {
  const guest = await launchGuest(options(changes));
  guests.push(guest.identity);
  return guest;
}

describe("launchGuest", () => {
  it("starts the guest that was defined", async () => {
    const guest = await launch();
    const { qmp, paths } = guest;
    expect(guest.qemuVersion.major).toBeGreaterThanOrEqual(10);
    expect(await qmp.execute("query-status")).toEqual({ status: "running", running: true });
    expect(await qmp.execute("query-name")).toBe("web1");
    expect(await qmp.execute("query-uuid")).toBe(definition.uuid);
    expect((await qmp.execute("query-memory-size-summary")).baseBytes).toBe(64 * 2 ** 20);
    expect(await qmp.execute("query-cpus-fast")).toHaveLength(1);
    const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
    expect(nodes.map(({ nodeName, driver }) => [nodeName, driver])).toEqual([
      ["disk0", "raw"],
      ["disk0-file", "file"],
    ]);
    expect(await qmp.execute("query-block")).toMatchObject([
      {
        qdev: "/machine/peripheral/disk0-device/virtio-backend",
        node: { nodeName: "disk0", virtualBytes: 2 ** 20, readOnly: false },
      },
    ]);
    expect((await stat(paths.directory)).mode & 0o777).toBe(0o700);
    expect((await stat(paths.serialLog)).isFile()).toBe(true);
    expect((await stat(paths.qemuLog)).mode & 0o777).toBe(0o600);
    const environment = await readFile(`/proc/${guest.pid}/environ`, "utf8");
    expect(
      environment
        .split("\0")
        .filter(Boolean)
        .map((text) => text.split("=")[0]),
    ).toEqual(["PATH", "LANG"]);
    expect(await guest.quit({ timeoutMs: 20_000 })).toEqual({
      kind: "observed",
      code: 0,
      signal: null,
    });
  });

  it("keeps an incoming guest stopped, waiting for its migration", async () => {
    const guest = await launch({ incoming: true });
    expect(await guest.qmp.execute("query-status")).toEqual({
      status: "inmigrate",
      running: false,
    });
    await guest.kill();
  });

  it("passes names and paths with commas and quotes on as they are", async () => {
    const hostile = 'a=b,c,,d"},{"execute":"quit';
    await makeImage(`${hostile}.raw`);
    const guest = await launch({
      directory: join(root, hostile),
      definition: {
        ...definition,
        name: hostile,
        disks: [{ ...definition.disks[0]!, image: `${hostile}.raw` }],
      },
    });
    expect(await guest.qmp.execute("query-name")).toBe(hostile);
    expect(await guest.qmp.execute("query-status")).toMatchObject({ running: true });
    const nodes = await guest.qmp.execute("query-named-block-nodes", { flat: true });
    expect(nodes.find(({ driver }) => driver === "file")?.filename).toBe(
      join(imageDirectory, `${hostile}.raw`),
    );
    await guest.detach();
    const adopted = await adoptGuest({ ...guest.identity, timeoutMs: 10_000 });
    await adopted.kill();
  });

  it("tells what QEMU said when it ends at once", async () => {
    const failing = options({ definition: { ...definition, machine: "pc-q35-99.9" } });
    await expect(launchGuest(failing)).rejects.toMatchObject({
      detail: {
        code: "qemu-exited",
        exitCode: 1,
        signal: null,
        lastLines: [
          expect.stringContaining("unsupported machine type"),
          expect.stringContaining("-machine help"),
        ],
      },
    });
    await makeImage("disk1.raw");
    const twice = [definition.disks[0]!, { ...definition.disks[0]!, id: "disk1" }];
    const locked = options({ definition: { ...definition, disks: twice } });
    await expect(launchGuest(locked)).rejects.toMatchObject({
      code: "qemu-exited",
      message: expect.stringContaining("lock") as string,
    });
  });

  it("leaves no QEMU behind when it gives up", async () => {
    const pidFile = join(root, "pid");
    const silent = join(root, "silent-qemu");
    // It says what a QEMU says when asked, and never listens when started.
    const script = [
      "#!/bin/sh",
      'if [ "$1" = --version ]; then echo "QEMU emulator version 10.0.2"; exit; fi',
      'if [ "$1" = -machine ]; then exit; fi',
      `echo $$ > ${pidFile}; exec sleep 600`,
    ];
    await writeFile(silent, script.join("\n"), { mode: 0o755 });
    await expect(launchGuest(options({ binary: silent, timeoutMs: 500 }))).rejects.toMatchObject({
      detail: { code: "qemu-start-timeout", timeoutMs: 500 },
    });
    expect(readProcStat(Number(await readFile(pidFile, "utf8")))).toBeNull();

    await rm(pidFile);
    const reason = new Error("enough");
    const controller = new AbortController();
    const launching = launchGuest(options({ binary: silent, signal: controller.signal }));
    launching.catch(() => undefined);
    const pidOf = (): Promise<number> => readFile(pidFile, "utf8").then(Number, () => 0);
    await expect.poll(pidOf, { timeout: 10_000 }).toBeGreaterThan(0);
    const pid = await pidOf();
    controller.abort(reason);
    await expect(launching).rejects.toBe(reason);
    expect(readProcStat(pid)).toBeNull();
  });

  it("refuses, before it starts anything, what cannot migrate or is not there", async () => {
    const refused = async (changes: Partial<GuestDefinition>): Promise<unknown> => {
      const outcome = await launchGuest(
        options({ definition: { ...definition, ...changes } }),
      ).then(
        () => "started",
        (error: unknown) => (error as { code?: unknown }).code,
      );
      return outcome;
    };
    expect(await refused({ cpu: "max" })).toBe("cpu-model-not-migratable");
    expect(await refused({ boot: { kernel: "vmlinuz" } })).toBe("image-not-found");
    expect(await refused({ boot: { kernel: "../../etc/passwd" } })).toBe("image-outside-directory");
    await expect(stat(join(root, "web1"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("does not start a second QEMU in the directory of one that runs", async () => {
    const guest = await launch();
    await expect(launchGuest(options())).rejects.toMatchObject({ code: "guest-directory-in-use" });
    expect((await guest.qmp.execute("query-status")).running).toBe(true);
    await guest.kill();
    const next = await launch();
    expect((await next.qmp.execute("query-status")).running).toBe(true);
    await next.quit({ timeoutMs: 20_000 });
  });
});

describe("a running guest", () => {
  it("can be adopted by a fresh object, which sees it end", async () => {
    const guest = await launch();
    await guest.detach();
    const adopted = await adoptGuest({ ...guest.identity, timeoutMs: 10_000 });
    expect(adopted.pid).toBe(guest.pid);
    expect(adopted.qemuVersion).toEqual(guest.qemuVersion);
    expect(adopted.paths).toEqual(guest.paths);
    expect((await adopted.qmp.execute("query-status")).running).toBe(true);
    expect(await adopted.quit({ timeoutMs: 20_000 })).toEqual({ kind: "unobserved" });
    await expect(adoptGuest({ ...guest.identity, timeoutMs: 1000 })).rejects.toMatchObject({
      code: "guest-gone",
    });
  });

  it("tells by which signal it ended", async () => {
    const guest = await launch();
    process.kill(guest.pid, "SIGTERM");
    // QEMU ends by itself on SIGTERM.
    expect(await guest.exited).toEqual({ kind: "observed", code: 0, signal: null });
    const next = await launch();
    process.kill(next.pid, "SIGKILL");
    expect(await next.exited).toEqual({ kind: "observed", code: null, signal: "SIGKILL" });
    expect(await next.qmp.closed).toEqual({ kind: "closed-by-qemu" });
  });

  it("outlives the process that launched it, and Ctrl-C in that process's terminal", async () => {
    for (const end of ["exit", "interrupt"] as const) {
      const identity = await launchFromAnotherProcess(end);
      guests.push(identity);
      expect(isSameProcess(identity.pid, identity.startTicks)).toBe(true);
      const adopted = await adoptGuest({ ...identity, timeoutMs: 10_000 });
      expect((await adopted.qmp.execute("query-status")).running).toBe(true);
      expect(await adopted.kill()).toEqual({ kind: "unobserved" });
    }
  });

  it("migrates to an incoming one over a unix socket, and runs there only after cont", async () => {
    // Both stand on one image, as the same file on a shared file system would be.
    const source = await launch({ directory: join(root, "s") });
    const dest = await launch({ directory: join(root, "d"), incoming: true });
    await setCapabilities(source.qmp);
    await setCapabilities(dest.qmp);
    const uri = `unix:${join(dest.paths.directory, "m.sock")}`;
    await dest.qmp.execute("migrate-incoming", { uri });
    const paused = statusEvent(source.qmp, "pre-switchover");
    const completed = statusEvent(source.qmp, "completed");
    await source.qmp.execute("migrate", { uri });
    await paused;
    expect((await source.qmp.execute("query-migrate")).ram?.totalBytes).toBeGreaterThan(2 ** 26);
    await source.qmp.execute("migrate-continue", { state: "pre-switchover" });
    await completed;
    expect(await source.qmp.execute("query-migrate")).toMatchObject({
      status: "completed",
      downtimeMs: expect.any(Number) as number,
      ram: { remainingBytes: 0, pageSizeBytes: 4096 },
    });
    await expect
      .poll(async () => (await source.qmp.execute("query-status")).status, { timeout: 10_000 })
      .toBe("postmigrate");
    expect((await dest.qmp.execute("query-status")).running).toBe(false);
    await dest.qmp.execute("cont");
    expect((await dest.qmp.execute("query-status")).status).toBe("running");
    await source.quit({ timeoutMs: 20_000 });
    await dest.quit({ timeoutMs: 20_000 });
  });
});

async function setCapabilities(qmp: QmpClient): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: (
      ["return-path", "events", "pause-before-switchover", "late-block-activate"] as const
    ).map((capability) => ({ capability, state: true })),
  });
}

async function statusEvent(qmp: QmpClient, status: string): Promise<void> {
  await qmp.waitFor((event) => migrationStatusOf(event) === status, { timeoutMs: 60_000 });
}

/** `exit`: the launching process ends by itself; `interrupt`: its process group gets SIGINT. */
async function launchFromAnotherProcess(end: "exit" | "interrupt"): Promise<GuestIdentity> {
  const module = new URL("./launch-guest.ts", import.meta.url).href;
  const source = `
    const { launchGuest } = await import(${JSON.stringify(module)});
    const guest = await launchGuest(${JSON.stringify(options({ directory: join(root, end) }))});
    process.stdout.write(JSON.stringify(guest.identity) + "\\n", () => {
      if (${JSON.stringify(end)} === "exit") process.exit(0);
    });
  `;
  const launcher = spawn(process.execPath, ["--input-type=module", "-e", source], {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(launcher, "exit");
  const [output] = (await once(launcher.stdout, "data")) as [Buffer];
  if (end === "interrupt") process.kill(-launcher.pid!, "SIGINT");
  await ended;
  return JSON.parse(output.toString()) as GuestIdentity;
}

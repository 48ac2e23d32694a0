import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";

const QEMU = process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64";

let directory: string;
let path: string;
let qemu: ChildProcess;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "qmp-qemu-"));
  path = join(directory, "qmp.sock");
  qemu = spawn(
    QEMU,
    [
      ...["-S", "-nodefaults", "-machine", "none", "-display", "none"],
      ...["-chardev", `socket,id=qmp0,path=${path},server=on,wait=off`],
      ...["-mon", "chardev=qmp0,mode=control"],
    ],
    { stdio: "inherit" },
  );
});

afterEach(async () => {
  if (qemu.exitCode === null && qemu.signalCode === null) {
    qemu.kill("SIGKILL");
    await once(qemu, "exit");
  }
  await rm(directory, { recursive: true });
});

/** QEMU listens some time after it was started. */
async function connect(): Promise<QmpClient> {
  let client: QmpClient | null = null;
  const attempt = async (): Promise<boolean> => {
    try {
      client = await QmpClient.connect({ path, timeoutMs: 10_000 });
    } catch (error) {
      if (!(error instanceof QmpError && error.code === "qmp-connect-failed")) throw error;
    }
    return client !== null;
  };
  await expect.poll(attempt, { timeout: 20_000 }).toBe(true);
  return client!;
}

describe("QmpClient with a real QEMU", () => {
  it("reads the reply of every query", async () => {
    const client = await connect();
    expect(await client.execute("query-version")).toEqual(client.version);
    expect(client.version.major).toBeGreaterThanOrEqual(7);
    expect(await client.execute("query-status")).toEqual({ status: "prelaunch", running: false });
    expect(await client.execute("query-migrate")).toMatchObject({ status: "none", ram: null });
    expect(await client.execute("query-name")).toBeNull();
    expect(await client.execute("query-uuid")).toBe("00000000-0000-0000-0000-000000000000");
    expect(await client.execute("query-cpus-fast")).toEqual([]);
    expect(await client.execute("query-memory-size-summary")).toEqual({
      baseBytes: 0,
      pluggedBytes: 0,
    });
    expect(await client.execute("query-block")).toEqual([]);
    expect(await client.execute("query-named-block-nodes", { flat: true })).toEqual([]);
    const machines = await client.execute("query-machines");
    expect(machines.map(({ name }) => name)).toContain("pc-q35-7.2");
    const capabilities = await client.execute("query-migrate-capabilities");
    expect(capabilities.get("return-path")).toBe(false);
    await client.close();
  });

  it("sets capabilities and parameters that QEMU then reports", async () => {
    const client = await connect();
    await client.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "return-path", state: true },
        { capability: "events", state: true },
        { capability: "pause-before-switchover", state: true },
        { capability: "late-block-activate", state: true },
      ],
    });
    const capabilities = await client.execute("query-migrate-capabilities");
    expect(capabilities.get("pause-before-switchover")).toBe(true);
    await client.execute("migrate-set-parameters", {
      "max-bandwidth": 12_345_678,
      "downtime-limit": 250,
    });
    expect(await client.execute("query-migrate-parameters")).toMatchObject({
      maxBandwidthBytesPerSecond: 12_345_678,
      downtimeLimitMs: 250,
    });
    await client.close();
  });

  it("tells QEMU's refusal by class and text, and goes on", async () => {
    const client = await connect();
    await expect(
      client.execute("migrate-continue", { state: "pre-switchover" }),
    ).rejects.toMatchObject({ detail: { code: "qmp-command-failed", errorClass: "GenericError" } });
    await expect(client.execute("qmp_capabilities", {})).rejects.toMatchObject({
      detail: { code: "qmp-command-failed", errorClass: "CommandNotFound" },
    });
    expect((await client.execute("query-status")).running).toBe(false);
    await client.close();
  });

  it("serves one session at a time, and the next when the first has closed", async () => {
    const first = await connect();
    await expect(QmpClient.connect({ path, timeoutMs: 200 })).rejects.toMatchObject({
      code: "qmp-timeout",
    });
    expect((await first.execute("query-status")).running).toBe(false);
    await first.close();
    const second = await connect();
    expect((await second.execute("query-status")).running).toBe(false);
    await second.close();
  });

  it("is not confused by replies that QEMU owed an earlier session", async () => {
    // QEMU carries out what it had read before a connection broke, and answers whoever comes next.
    for (let round = 0; round < 30; round += 1) {
      const earlier = await connect();
      qemu.kill("SIGSTOP");
      const owed = Array.from({ length: 5 }, () => earlier.execute("query-machines"));
      await earlier.close();
      await Promise.allSettled(owed);
      const connecting = QmpClient.connect({ path, timeoutMs: 10_000 });
      qemu.kill("SIGCONT");
      const later = await connecting;
      expect(await later.execute("query-status")).toEqual({ status: "prelaunch", running: false });
      await later.close();
    }
  });

  it("gives up on a command while QEMU is stopped, and drops the reply that comes later", async () => {
    const client = await connect();
    qemu.kill("SIGSTOP");
    await expect(
      client.execute("query-status", undefined, { timeoutMs: 100 }),
    ).rejects.toMatchObject({ code: "qmp-timeout" });
    qemu.kill("SIGCONT");
    expect(await client.execute("query-name")).toBeNull();
    expect(client.isOpen).toBe(true);
    await client.close();
  });

  it("tells of the end of QEMU by an event and by the end of the session", async () => {
    const client = await connect();
    const shutdown = client.waitFor(({ name }) => name === "SHUTDOWN", { timeoutMs: 10_000 });
    await client.execute("quit");
    const event = await shutdown;
    expect(event.data["reason"]).toBe("host-qmp-quit");
    expect(event.seconds * 1000).toBeGreaterThan(Date.now() - 60_000);
    expect(await client.closed).toEqual({ kind: "closed-by-qemu" });
  });
});

// docker-compose.yml on a real engine: what a user gets from `docker compose up --build`.

import { readFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { assert, messageOf } from "@vmferry/core";
import type { AgentEvent, GuestObject, MigrationObject } from "@vmferry/protocol";
import { judgeHandOver, type GuestConsole } from "@vmferry/testkit";
import { ComposeStack, type AgentService } from "./compose-stack.ts";
import { engineIsMissing } from "./docker-engine.ts";

const MIB = 1024 * 1024;
/** The least that a migration may be limited to. */
const BANDWIDTH_MIN = 4096;
const BUILD_MS_MAX = 900_000;
const SOON_MS = 60_000;
const SOON = { timeout: SOON_MS };

interface WatchedGuest {
  readonly serialLog: string;
  readonly console: GuestConsole;
}

const missing = engineIsMissing();
const reason = missing === null ? "" : ` (skipped: ${missing})`;

describe.skipIf(missing !== null)(`docker compose${reason}`, () => {
  let opened: ComposeStack | null = null;
  /** An engine that does not come up here says nothing about what would run on it. */
  let noEngine: string | null = null;
  const stack = (): ComposeStack => {
    assert(opened !== null, "the stack is up while tests run");
    return opened;
  };

  beforeAll(async () => {
    try {
      opened = await ComposeStack.open();
    } catch (error) {
      noEngine = `the Docker engine does not start: ${messageOf(error)}`;
      console.warn(noEngine);
      return;
    }
    await opened.compose("up", "--build", "--detach");
  }, BUILD_MS_MAX);

  beforeEach(({ skip }) => {
    if (noEngine !== null) skip(noEngine);
  });

  afterEach(async ({ task }) => {
    if (task.result?.state !== "fail") return;
    console.error(await stack().compose("ps", "--all"));
    console.error(await stack().compose("logs", "--no-color", "--tail", "60"));
  });

  afterAll(async () => {
    await opened?.close();
  });

  it("moves the demo guest at work by what the README says, and tells about it as lines of JSON", async () => {
    await demoAtSource();
    const atSource = await watchSource();
    const [up, ...commands] = await readmeCommands();
    expect(up).toBe("docker compose up --build --detach");
    expect(commands.map((command) => command.split(" ", 1)[0])).toEqual([
      'auth="authorization:',
      ...["curl", "curl", "curl"],
    ]);
    const { host } = new URL(await stack().url("source"));
    const answers: unknown[] = [];
    let id = "";
    const program = commands.join("\necho\n").replaceAll("localhost:7070", host);
    for await (const line of stack().shell(program)) {
      if (line.trim() === "") continue;
      const answer = JSON.parse(line) as { id?: string; type?: string; migration?: { id: string } };
      answers.push(answer);
      if (answers.length === 2) id = answer.id!;
      if (answer.type === "migration.completed" && answer.migration?.id === id) break;
    }
    expect(answers[0]).toMatchObject({ guests: [{ name: "demo", state: "running" }] });
    expect(answers[1]).toMatchObject({ guest: "demo", destination: "dest", role: "source" });
    const told = (answers.slice(2) as AgentEvent[]).filter(
      (event) => "migration" in event && event.migration.id === id,
    );
    expect(told.map(({ type }) => type)).toContain("migration.phase");

    await expectArrived(id, atSource);
    const shown = () => stack().compose("logs", "--no-log-prefix", "--no-color", "console");
    await expect.poll(shown, SOON).toMatch(/dest: VF seq=\d+ .* errors=0 /);
  });

  it("moves it by post-copy too, without any step on the host", async () => {
    await demoAtSource();
    const atSource = await watchSource();
    const source = await stack().api("source");
    const { id } = await source.migrate({
      ...{ guest: "demo", destination: "dest", mode: "post-copy" },
      // More changes in the first pass than goes over that in the time of a stun.
      limits: { bandwidthBytesPerSecond: 8 * MIB },
    });
    const migration = await expectArrived(id, atSource);
    expect(migration.phases.map(({ phase }) => phase)).toContain("post-copy");
  });

  it("brings its memory by the volume that both share, too, when the network is no help", async () => {
    await demoAtSource();
    const atSource = await watchSource();
    const source = await stack().api("source");
    const { id } = await source.migrate({
      ...{ guest: "demo", destination: "dest" },
      ...{ mode: "post-copy", fallback: "shared-filesystem" },
      limits: { bandwidthBytesPerSecond: 8 * MIB },
    });
    const now = (): Promise<MigrationObject> => source.migration(id);
    await expect.poll(async () => (await now()).phase, SOON).toBe("post-copy");
    // From here on the network brings what the guest waits for; the rest would take it hours.
    await source.request("PATCH", `/v1/migrations/${id}`, {
      limits: { bandwidthBytesPerSecond: BANDWIDTH_MIN },
    });
    await expect.poll(async () => (await now()).fallback, SOON).toMatch(/^(growing|complete)$/);
    const migration = await expectArrived(id, atSource);
    // Whoever takes the last page may be before the mark behind it.
    expect(migration.fallback).toMatch(/^(growing|complete)$/);
    const left = (): Promise<string> =>
      stack().exec("dest", "ls", "/var/lib/vmferry/shared/vmferry-pages");
    await expect.poll(left, SOON).toBe("");
  });

  it("encrypts what goes between the agents, and dest hears nobody without a certificate", async () => {
    const ask = (program: string): Promise<string> =>
      stack().exec("source", "node", "--input-type=module", "--eval", program);
    const withTls = (options: string): string => `
      import { readFileSync } from "node:fs";
      import { connect } from "node:tls";
      const file = (name) => readFileSync("/var/lib/vmferry/tls/" + name + ".pem");
      const socket = connect({ host: "dest", port: 7081, ca: file("ca-cert"), ${options} });
      socket.on("error", ({ code }) => console.log(code));
      socket.on("close", () => console.log("closed"));
      socket.once("data", (bytes) => console.log(socket.getProtocol(), String(bytes).split(" ")[1]));
      socket.write("GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n");`;
    const own = 'cert: file("client-cert"), key: file("client-key")';
    expect(await ask(withTls(own))).toBe("TLSv1.3 426\nclosed\n");
    expect(await ask(withTls(""))).toMatch(/^(\w+_CERTIFICATE_REQUIRED|ECONNRESET)\nclosed\n$/);
    await expect(ask('await fetch("http://dest:7081/")')).rejects.toThrow("fetch failed");
    for (const side of ["source", "dest"] as const) {
      const files = await stack().exec(side, "ls", "/var/lib/vmferry/tls");
      expect(files.trim().split("\n")).toEqual([
        "ca-cert.pem",
        ...["client-cert.pem", "client-key.pem", "server-cert.pem", "server-key.pem"],
      ]);
    }
  });

  it("loses the guests of a container that restarts, and starts demo anew with the next up", async () => {
    const side = await sideOfDemo();
    await stack().compose("restart", side);
    await expect.poll(async () => (await stack().api(side)).guests(), SOON).toEqual([]);
    await stack().compose("up", "--detach");
    await demoAtSource();
    const again = await stack().compose("run", "--rm", "demo");
    expect(again).toContain("demo is there already");
  });

  it("serves the API on loopback alone, and to nobody without the token", async () => {
    const { services } = JSON.parse(await stack().compose("config", "--format", "json")) as {
      services: Record<string, { ports?: { host_ip: string }[] }>;
    };
    const addresses = Object.values(services).flatMap(({ ports = [] }) => ports);
    expect(addresses.map(({ host_ip: address }) => address)).toEqual(["127.0.0.1", "127.0.0.1"]);
    for (const side of ["source", "dest"] as const) {
      const url = await stack().url(side);
      expect((await fetch(`${url}/v1/guests`)).status).toBe(401);
      expect((await fetch(`${url}/healthz`)).status).toBe(200);
    }
  });

  it("runs no process as root, with a capability, or with a way to get one", async () => {
    for (const side of ["source", "dest"] as const) {
      const status = await stack().exec(side, "sh", "-c", "cat /proc/[0-9]*/status");
      const values = (name: string): string[] =>
        [...status.matchAll(new RegExp(`^${name}:\\s*(.*)$`, "gm"))].map(([, value]) => value!);
      expect(values("Pid").length).toBeGreaterThan(1);
      expect(new Set(values("Uid"))).toEqual(new Set(["7070\t7070\t7070\t7070"]));
      for (const set of ["CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
        expect(new Set(values(set))).toEqual(new Set(["0000000000000000"]));
      }
      expect(new Set(values("NoNewPrivs"))).toEqual(new Set(["1"]));
    }
  });

  it("can write to its volumes and nowhere else", async () => {
    const mounts = await stack().exec("source", "cat", "/proc/self/mounts");
    expect(mounts).toMatch(/^\S+ \/ \S+ ro[, ]/m);
    expect(mounts).toMatch(/^\S+ \/var\/lib\/vmferry\/tokens \S+ ro[, ]/m);
    for (const name of ["state", "images", "shared"]) {
      const file = `/var/lib/vmferry/${name}/written`;
      await stack().exec("dest", "sh", "-c", `echo yes >${file} && rm ${file}`);
    }
  });

  /** Started anew there where it lives at dest. */
  async function demoAtSource(): Promise<GuestObject> {
    if ((await sideOfDemo()) === "dest") {
      const { serialLog } = await (await stack().api("dest")).powerOff("demo");
      assert(serialLog !== null, "a guest of an agent has a console");
      // Logs are continued: what the next life says at dest is not to be judged by what this one said.
      await stack().exec("dest", "rm", serialLog);
      await stack().compose("run", "--rm", "demo");
    }
    const demo = await (await stack().api("source")).guest("demo");
    expect(demo.state).toBe("running");
    return demo;
  }

  /** Its console at the source, once it works there. */
  async function watchSource(): Promise<WatchedGuest> {
    const { serialLog } = await (await stack().api("source")).guest("demo");
    assert(serialLog !== null, "a guest of an agent has a console");
    const console = stack().follow("source", serialLog, "now");
    await console.waitFor(({ latestReport }) => latestReport !== null, { timeoutMs: SOON_MS });
    return { serialLog, console };
  }

  /** Both agents say so, with equal digests, and by its consoles the guest has lost nothing. */
  async function expectArrived(
    id: string,
    { console, serialLog }: WatchedGuest,
  ): Promise<MigrationObject> {
    const [source, dest] = [await stack().api("source"), await stack().api("dest")];
    const migration = await source.wait(id, SOON_MS);
    expect(migration).toMatchObject({ phase: "completed", error: null });
    const after = stack().follow("dest", serialLog, "beginning");
    await after.waitFor(hasCheckedAll, { timeoutMs: SOON_MS });
    const logs = { sourceLines: console.lines, destLines: after.lines };
    expect(judgeHandOver(logs).findings).toEqual([]);
    expect(await dest.wait(id, SOON_MS)).toMatchObject({
      phase: "completed",
      result: {
        ramDigest: migration.result?.ramDigest,
        diskDigests: { disk0: migration.result?.diskDigests["disk0"] },
      },
    });
    expect(await dest.guest("demo")).toMatchObject({ state: "running" });
    await expect.poll(() => source.guest("demo"), SOON).toMatchObject({ state: "handed-off" });
    return migration;
  }

  async function sideOfDemo(): Promise<AgentService> {
    const guests = await (await stack().api("dest")).guests();
    return guests.some(({ state }) => state === "running") ? "dest" : "source";
  }
});

/** Two sweeps over memory and disk have begun and ended here. */
function hasCheckedAll({ reports, latestReport, errors }: GuestConsole): boolean {
  const [first] = reports;
  if (errors.length > 0) return true; // the verdict tells of it
  if (first === undefined || latestReport === null) return false;
  return latestReport.sweeps - first.sweeps >= 2 && latestReport.diskSweeps - first.diskSweeps >= 2;
}

/** Of its section about docker compose, one a line. */
async function readmeCommands(): Promise<string[]> {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const block = /^## docker compose\n.*?^```\n(.*?)^```$/ms.exec(readme)?.[1];
  assert(block !== undefined, "the README shows docker compose");
  return block.trim().split("\n");
}

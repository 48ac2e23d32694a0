// docker-compose.yml on a real engine: what a user gets from `docker compose up --build`.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { assert, messageOf } from "@vmferry/core";
import type { AgentEvent, GuestObject } from "@vmferry/protocol";
import { judgeHandOver, type GuestConsole } from "@vmferry/testkit";
import { ComposeStack, type AgentService } from "./compose-stack.ts";
import { engineIsMissing } from "./docker-engine.ts";

const BUILD_MS_MAX = 900_000;
const SOON_MS = 60_000;
const SOON = { timeout: SOON_MS };

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

  it("moves the demo guest at work, and tells about it as lines of JSON", async () => {
    const [source, dest] = [await stack().api("source"), await stack().api("dest")];
    const { serialLog } = await demoAtSource();
    assert(serialLog !== null, "a guest of an agent has a console");
    const before = stack().follow("source", serialLog, "now");
    await before.waitFor(({ latestReport }) => latestReport !== null, { timeoutMs: SOON_MS });
    const events = await openEvents(`${source.url}/v1/events`, await stack().token());

    const { id } = await source.migrate({ guest: "demo", destination: "dest" });
    const migration = await source.wait(id, SOON_MS);
    expect(migration).toMatchObject({ phase: "completed", error: null });
    const told = await readUntil(events, (event) => event.type === "migration.completed");
    const ofIt = told.filter((event) => "migration" in event && event.migration.id === id);
    const types = ofIt.map(({ type }) => type);
    expect(types).toEqual(expect.arrayContaining(["migration.phase", "migration.completed"]));

    const after = stack().follow("dest", serialLog, "beginning");
    await after.waitFor(hasCheckedAll, { timeoutMs: SOON_MS });
    const logs = { sourceLines: before.lines, destLines: after.lines };
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
    const shown = () => stack().compose("logs", "--no-log-prefix", "--no-color", "console");
    await expect.poll(shown, SOON).toMatch(/dest: VF seq=\d+ .* errors=0 /);
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

  async function demoAtSource(): Promise<GuestObject> {
    const demo = await (await stack().api("source")).guest("demo");
    expect(demo.state).toBe("running");
    return demo;
  }

  async function sideOfDemo(): Promise<AgentService> {
    const guests = await (await stack().api("dest")).guests();
    return guests.length > 0 ? "dest" : "source";
  }
});

/** Two sweeps over memory and disk have begun and ended here. */
function hasCheckedAll({ reports, latestReport, errors }: GuestConsole): boolean {
  const [first] = reports;
  if (errors.length > 0) return true; // the verdict tells of it
  if (first === undefined || latestReport === null) return false;
  return latestReport.sweeps - first.sweeps >= 2 && latestReport.diskSweeps - first.diskSweeps >= 2;
}

async function openEvents(url: string, token: string): Promise<ReadableStream<Uint8Array>> {
  const headers = { accept: "application/x-ndjson", authorization: `Bearer ${token}` };
  const { status, body } = await fetch(url, { headers });
  expect(status).toBe(200);
  assert(body !== null, "the stream of events has a body");
  return body;
}

/** All events up to the first that is wanted; the stream is closed then. */
async function readUntil(
  stream: ReadableStream<Uint8Array>,
  isWanted: (event: AgentEvent) => boolean,
): Promise<AgentEvent[]> {
  const events: AgentEvent[] = [];
  let text = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (text + chunk).split("\n");
    text = lines.pop() ?? "";
    for (const line of lines.filter((one) => one.trim() !== "")) {
      const event = JSON.parse(line) as AgentEvent;
      events.push(event);
      if (isWanted(event)) return events;
    }
  }
  throw new Error(`the stream ended after ${events.length} events`);
}

import { afterEach, beforeEach, expect, test } from "vitest";
import { AgentApi } from "./api/agent-api.ts";
import { EXIT_CODE } from "./exit-code.ts";
import { completedMigration, FakeAgent, sampleMigration } from "./fake-agent.ts";
import { runProgram } from "./program.ts";

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
});

afterEach(async () => {
  await agent.close();
});

/** What the command writes to its standard output; it has to succeed. */
async function outputOf(words: readonly string[]): Promise<string> {
  let written = "";
  const output = { write: (text: string) => (written += text) };
  const local = { stdout: output, stderr: output, environment: { VMFERRY_API: agent.url } };
  const exitCode = await runProgram(words, {
    local,
    contextFor: ({ api }) => ({
      ...local,
      api: new AgentApi({ url: new URL(api), token: null }),
      onInterrupt: () => () => undefined,
    }),
  });
  expect(exitCode).toBe(EXIT_CODE.ok);
  return written;
}

const guest = {
  name: "web1",
  state: "running",
  epoch: 2,
  pid: 4711,
  qemuVersion: "10.0.2",
  serialLog: null,
  machine: "pc-q35-10.0",
  accel: "tcg",
  cpu: "qemu64",
  vcpus: 1,
  memoryBytes: 536_870_912,
  disks: [{ id: "disk0", image: "web1.raw", mode: "copy" }],
};

test.each([
  {
    words: ["list"],
    route: "GET /v1/migrations?limit=20",
    body: { migrations: [completedMigration()], nextCursor: null },
    says: /^m1 +web1 +host-b +completed +2026-01-02T03:04:05Z +4\.20 s +38 ms$/m,
  },
  {
    words: ["show", "m1"],
    route: "GET /v1/migrations/m1",
    body: completedMigration(),
    says: /^ {2}RAM digest +00ff$/m,
  },
  {
    words: ["cancel", "m1"],
    route: "DELETE /v1/migrations/m1",
    body: sampleMigration(),
    says: /^Asked to cancel/,
  },
  {
    words: ["resolve", "m1", "source", "--fenced"],
    route: "POST /v1/migrations/m1/resolve",
    body: sampleMigration({ phase: "in-doubt" }),
    says: /^The guest web1 is the source's now/,
  },
  {
    words: ["guest", "list"],
    route: "GET /v1/guests",
    body: { guests: [guest] },
    says: /^web1 +running +512 MiB +1 +tcg +2 +4711 +10\.0\.2$/m,
  },
  {
    words: ["guest", "show", "web1"],
    route: "GET /v1/guests/web1",
    body: guest,
    says: /^ {2}disks +disk0 web1\.raw \(copy\)$/m,
  },
  {
    words: ["guest", "stop", "web1"],
    route: "DELETE /v1/guests/web1",
    body: { ...guest, state: "stopped", pid: null },
    says: /^ {2}state +stopped$/m,
  },
])("$words shows what the agent answers, and with --json word for word", async (command) => {
  const { words, route, body, says } = command;
  agent.answer(route, { status: 200, body });
  expect(await outputOf(words)).toMatch(says);
  expect(JSON.parse(await outputOf([...words, "--json"]))).toEqual(body);
});

test("whose the guest is cannot be said in passing", async () => {
  await expect(outputOf(["resolve", "m1", "source"])).rejects.toThrow("--fenced");
});

test("a list that goes on says so", async () => {
  const body = { migrations: [completedMigration()], nextCursor: "c" };
  agent.answer("GET /v1/migrations?limit=1", { status: 200, body });
  expect(await outputOf(["list", "--limit", "1"])).toContain("There are more");
});

test("names and ids cannot reach other paths of the API", async () => {
  agent.answer("GET /v1/guests/a%2Fb%3Fc", { status: 200, body: guest });
  expect(await outputOf(["guest", "show", "a/b?c"])).toContain("Guest web1");
});

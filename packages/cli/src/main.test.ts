// The real command in a process of its own, against an agent that is made up.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runCommand, type CommandOutcome, type Surroundings } from "./command-fixture.ts";
import { EXIT_CODE } from "./exit-code.ts";
import { completedMigration, eventOf, FakeAgent } from "./fake-agent.ts";

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
});

afterEach(async () => {
  await agent.close();
});

function run(
  words: readonly string[],
  rest: Omit<Surroundings, "api"> = {},
): Promise<CommandOutcome> {
  return runCommand(words, { api: agent.url, ...rest });
}

describe("watch", () => {
  test("ends as the migration ends", async () => {
    agent.publish(eventOf(completedMigration()));
    const { exitCode, stdout } = await run(["watch", "m1"]);
    expect(exitCode).toBe(EXIT_CODE.ok);
    expect(stdout).toContain("completed: web1 runs at host-b.");
  });

  test("leaves a migration that takes too long", async () => {
    const { exitCode } = await run(["watch", "m1", "--timeout", "50ms"]);
    expect(exitCode).toBe(EXIT_CODE.waitTimedOut);
  });
});

describe("guest start", () => {
  test("sends what the file says", async () => {
    agent.answer("POST /v1/guests", { status: 201, body: {} });
    await run(["guest", "start", "-"], { input: ' {"name": "web1"} ' });
    expect(JSON.parse(agent.seen("POST /v1/guests")[0]!.body)).toEqual({ name: "web1" });
  });

  test("refuses what is no JSON, or is not there", async () => {
    const broken = await run(["guest", "start", "-"], { input: "name: web1" });
    expect(broken.exitCode).toBe(EXIT_CODE.usage);
    expect(broken.stderr).toMatch(/^vmferry: FILE has to be a guest's definition in JSON/);
    const missing = await run(["guest", "start", "/nonexistent.json"]);
    expect(missing.exitCode).toBe(EXIT_CODE.usage);
    expect(missing.stderr).toContain("/nonexistent.json");
  });
});

describe("the API", () => {
  const guests = "GET /v1/guests";

  test("is where --api says, before VMFERRY_API", async () => {
    agent.answer(guests, { status: 200, body: { guests: [] } });
    const environment = { VMFERRY_API: "http://127.0.0.1:9" };
    const { exitCode } = await run(["guest", "list", "--api", agent.url], { environment });
    expect(exitCode).toBe(EXIT_CODE.ok);
  });

  test("gets the token", async () => {
    agent.answer(guests, { status: 200, body: { guests: [] } });
    await run(["guest", "list"], { environment: { VMFERRY_API_TOKEN: "s3cret" } });
    expect(agent.seen(guests)[0]!.headers.authorization).toBe("Bearer s3cret");
  });

  test("that wants a token is answered with the name of the variable", async () => {
    agent.refuse(guests, 401, { code: "unauthorized" });
    expect((await run(["guest", "list"])).stderr).toContain("VMFERRY_API_TOKEN");
  });

  test("where nothing listens is unreachable, and it is said what to do", async () => {
    await agent.close();
    const { exitCode, stderr } = await run(["list"]);
    expect(exitCode).toBe(EXIT_CODE.unreachable);
    expect(stderr).toContain(`no agent answers at ${agent.url}: connection refused.`);
    expect(stderr).toContain("npx vmferry-source-agent");
    expect(stderr).toContain("--api");
  });

  test.each([
    { status: 200, body: "<html>", type: "text/html" },
    { status: 502, body: "<html>", type: "text/html" },
    { status: 302, body: "", type: "text/plain", headers: { location: "/elsewhere" } },
  ])("is not what answers $status with $type", async (answer) => {
    agent.answer(guests, answer);
    agent.answer("GET /elsewhere", { status: 200, body: { guests: [] } });
    const { exitCode, stderr } = await run(["guest", "list"]);
    expect(exitCode).toBe(EXIT_CODE.unreachable);
    expect(stderr).toContain("no agent answers");
  });
});

describe("wrong usage", () => {
  test.each([
    { words: ["migrate", "web1"], says: "DEST" },
    { words: ["migrate", "web1", "host-b", "--downtime", "300"], says: "--downtime" },
    { words: ["migrate", "web1", "host-b", "--bandwidth", "fast"], says: "--bandwidth" },
    { words: ["migrate", "web1", "host-b", "--on-stall", "pray"], says: "--on-stall" },
    { words: ["list", "--limit", "0"], says: "--limit" },
    { words: ["list", "--api", "host-a:7070"], says: "--api" },
    { words: ["list", "--api-token-file", "/none"], says: "--api-token-file: " },
    { words: ["completion", "tcsh"], says: "Allowed choices are bash, zsh, fish." },
    { words: ["teleport"], says: "teleport" },
    { words: ["migrat"], says: "Did you mean migrate?" },
    { words: ["migrate", "--down", "1s"], says: "See vmferry migrate --help." },
    { words: ["migrate", "a", "b", "--downtim", "1s"], says: "Did you mean --downtime?" },
    { words: ["guest", "clone"], says: "See vmferry guest --help." },
    { words: ["list", "--frobnicate"], says: "--frobnicate" },
    { words: [], says: "Usage: vmferry" },
  ])("$words is refused before anybody is asked", async ({ words, says }) => {
    const { exitCode, stdout, stderr } = await run(words);
    expect(exitCode).toBe(EXIT_CODE.usage);
    expect(stderr).toContain(says);
    expect(stdout).toBe("");
    expect(agent.requests).toEqual([]);
  });

  test("help that was asked for is no error", async () => {
    for (const words of [["--help"], ["migrate", "--help"], ["--version"]]) {
      const { exitCode, stderr } = await run(words);
      expect({ exitCode, stderr }).toEqual({ exitCode: EXIT_CODE.ok, stderr: "" });
    }
  });
});

test("a reader that has gone ends the command as SIGPIPE would", async () => {
  const body = { guests: [] };
  agent.answer("GET /v1/guests", { status: 200, body });
  const outcome = run(["guest", "list"], { deaf: true });
  expect((await outcome).exitCode).toBe(EXIT_CODE.pipeClosed);
});

// The real command in a process of its own, against an agent that is made up.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runCommand, type CommandOutcome } from "../command-fixture.ts";
import { EXIT_CODE } from "../exit-code.ts";
import { FakeAgent, sampleMigration } from "../fake-agent.ts";

const PREFLIGHT = "POST /v1/migrations/preflight";
const SWITCH = "POST /v1/migrations/m1/post-copy";
const PASSED = { name: "guest", status: "pass", detail: "web1 runs", hint: null };
const FAILED = { name: "destination", status: "fail", detail: "No answer.", hint: "Start it." };

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
});

afterEach(async () => {
  await agent.close();
});

function run(...words: readonly string[]): Promise<CommandOutcome> {
  return runCommand(words, { api: agent.url });
}

describe("preflight", () => {
  test("asks about what migrate would do, and shows each check", async () => {
    agent.answer(PREFLIGHT, { status: 200, body: { checks: [PASSED] } });
    const flags = ["--post-copy", "--downtime", "50ms", "--fallback", "shared-filesystem"];
    flags.push("--disk-handover", "lazy");
    const { exitCode, stdout } = await run("preflight", "web1", "host-b", ...flags);
    expect(exitCode).toBe(EXIT_CODE.ok);
    expect(stdout).toBe("pass  guest  web1 runs\n1 check: 1 passed\n");
    expect(JSON.parse(agent.seen(PREFLIGHT)[0]!.body)).toEqual({
      guest: "web1",
      destination: "host-b",
      mode: "post-copy",
      disk: { handover: "lazy" },
      fallback: "shared-filesystem",
      limits: { downtimeMsMax: 50 },
    });
  });

  test("names the checks that the migration would be allowed to fail", async () => {
    agent.answer(PREFLIGHT, { status: 200, body: { checks: [PASSED] } });
    const flags = ["--allow-unsafe", "memory", "--allow-unsafe", "dest-space"];
    await run("preflight", "web1", "host-b", ...flags);
    expect(JSON.parse(agent.seen(PREFLIGHT)[0]!.body)).toMatchObject({
      allowUnsafe: ["memory", "dest-space"],
    });
  });

  test("refuses where a check fails, and says what to do", async () => {
    agent.answer(PREFLIGHT, { status: 200, body: { checks: [PASSED, FAILED] } });
    const { exitCode, stdout } = await run("preflight", "web1", "host-b");
    expect(exitCode).toBe(EXIT_CODE.refused);
    expect(stdout).toBe(
      "pass  guest        web1 runs\n" +
        "fail  destination  No answer.\n" +
        "                   -> Start it.\n" +
        "2 checks: 1 passed, 1 failed\n",
    );
  });

  test("prints the agent's answer with --json", async () => {
    const body = { checks: [PASSED, FAILED] };
    agent.answer(PREFLIGHT, { status: 200, body });
    const { exitCode, stdout } = await run("preflight", "web1", "host-b", "--json");
    expect(exitCode).toBe(EXIT_CODE.refused);
    expect(JSON.parse(stdout)).toEqual(body);
  });
});

test("post-copy asks for the switch", async () => {
  agent.answer(SWITCH, { status: 202, body: sampleMigration() });
  const { exitCode, stdout } = await run("post-copy", "m1");
  expect(exitCode).toBe(EXIT_CODE.ok);
  expect(stdout).toBe("Asked to switch the migration of web1 to post-copy; it is pre-copy.\n");
});

describe("an agent that does not have it", () => {
  test.each([
    { words: ["preflight", "web1", "host-b"], status: 405, code: "method-not-allowed" },
    { words: ["preflight", "web1", "host-b"], status: 404, code: "not-found" },
    { words: ["preflight", "web1", "host-b"], status: 501, code: "not-implemented" },
    { words: ["post-copy", "m1"], status: 404, code: "not-found" },
    { words: ["post-copy", "m1"], status: 422, code: "not-available" },
  ])("is told as such: $words, $code", async ({ words, status, code }) => {
    for (const route of [PREFLIGHT, SWITCH]) agent.refuse(route, status, { code });
    const { exitCode, stderr } = await run(...words);
    expect(exitCode).toBe(EXIT_CODE.failed);
    expect(stderr).toContain(`vmferry: the agent does not offer ${words[0]!}: `);
    expect(stderr).toContain(`(${code})`);
  });

  test("is not taken for one that does not have the guest or the migration", async () => {
    agent.refuse(PREFLIGHT, 404, { code: "guest-not-found" });
    expect((await run("preflight", "web1", "host-b")).exitCode).toBe(EXIT_CODE.refused);
    agent.refuse(SWITCH, 404, { code: "migration-not-found" });
    expect((await run("post-copy", "m1")).stderr).toBe("vmferry: Not so. (migration-not-found)\n");
  });
});

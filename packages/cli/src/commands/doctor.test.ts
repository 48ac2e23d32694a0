// The real command in a process of its own.

import { afterEach, beforeEach, expect, test } from "vitest";
import type { Check } from "../api/check.ts";
import { runCommand } from "../command-fixture.ts";
import { EXIT_CODE } from "../exit-code.ts";
import { FakeAgent } from "../fake-agent.ts";

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
  agent.answer("GET /readyz", { status: 200, body: { status: "ready", reasons: [] } });
  agent.answer("GET /v1/guests", { status: 200, body: { guests: [] } });
});

afterEach(async () => {
  await agent.close();
});

test("every check has a name, and one that fails decides", async () => {
  const environment = { VMFERRY_QEMU: "/nonexistent/qemu", VMFERRY_SHARED_DIR: "/nonexistent" };
  const outcome = await runCommand(["doctor", "--json"], { api: agent.url, environment });
  expect(outcome.exitCode).toBe(EXIT_CODE.failed);
  const { checks } = JSON.parse(outcome.stdout) as { checks: Check[] };
  expect(checks.map(({ name }) => name)).toEqual([
    "qemu",
    "acceleration",
    "post-copy",
    "state-dir",
    "image-dir",
    "disk-space",
    "shared-dir",
    "certificates",
    "clock",
    `agent ${agent.url}`,
  ]);
  const failed = checks.filter(({ status }) => status === "fail").map(({ name }) => name);
  expect(failed).toEqual(["qemu", "shared-dir"]);
});

test("a flag wins over its variable, and the agents that are named over that of --api", async () => {
  const words = ["doctor", "--qemu", "/bin/true", "--json", agent.url];
  const { stdout } = await runCommand(words, {
    api: "http://127.0.0.1:9",
    environment: { VMFERRY_QEMU: "/nonexistent/qemu" },
  });
  expect(stdout).toContain("/bin/true does not say that it is QEMU");
  expect(stdout).not.toContain("127.0.0.1:9");
});

test("without --json there is a line a check, with what to do", async () => {
  const words = ["doctor", "--qemu", "/nonexistent/qemu"];
  const { stdout } = await runCommand(words, { api: agent.url });
  expect(stdout).toMatch(/^fail {2}qemu .* there is no \/nonexistent\/qemu\n +-> Install QEMU 10/m);
  expect(stdout).toMatch(
    /^skip {2}state-dir .* not looked at: give it with --state-dir or VMFERRY_STATE_DIR$/m,
  );
  expect(stdout).toMatch(/^10 checks: .*1 failed/m);
});

test("agents that are named have to answer, and the one of --api may", async () => {
  await agent.close();
  const statusOf = async (...words: string[]): Promise<string | undefined> => {
    const { stdout } = await runCommand(["doctor", "--json", ...words], {
      api: agent.url,
      environment: { VMFERRY_QEMU: "/bin/true" },
    });
    return (JSON.parse(stdout) as { checks: Check[] }).checks.at(-1)?.status;
  };
  expect(await statusOf()).toBe("warn");
  expect(await statusOf(agent.url)).toBe("fail");
});

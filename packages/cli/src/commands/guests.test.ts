// The real command in a process of its own, against an agent that is made up.

import { afterEach, beforeEach, expect, test } from "vitest";
import { runCommand, type CommandOutcome } from "../command-fixture.ts";
import { EXIT_CODE } from "../exit-code.ts";
import { FakeAgent } from "../fake-agent.ts";

const ATTACH = "POST /v1/guests";
const GUEST = {
  ...{ name: "web1", state: "running", epoch: 7, pid: 4711, qemuVersion: "10.0.2" },
  ...{ serialLog: null, machine: "pc-q35-10.0", accel: "kvm", cpu: "qemu64", vcpus: 1 },
  ...{ memoryBytes: 1024 ** 3, disks: [] },
  attached: { qmp: "/run/web1.sock", launchRefusal: "it has a usb-tablet (input0)" },
};

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
  agent.answer(ATTACH, { status: 201, body: GUEST });
});

afterEach(async () => {
  await agent.close();
});

function run(...words: readonly string[]): Promise<CommandOutcome> {
  return runCommand(words, { api: agent.url });
}

test("attach says which monitor, and shows what that means for moving", async () => {
  const { exitCode, stdout } = await run("guest", "attach", "web1", "--qmp", "/run/web1.sock");
  expect(exitCode).toBe(EXIT_CODE.ok);
  expect(stdout).toContain("attached");
  expect(stdout).toContain("a destination needs a QEMU prepared for it: it has a usb-tablet");
  expect(JSON.parse(agent.seen(ATTACH)[0]!.body)).toEqual({
    name: "web1",
    attach: { qmp: "/run/web1.sock" },
  });
});

test("attach names the processor and the disks that both hosts see", async () => {
  const flags = ["--qmp", "/q", "--cpu", "qemu64,vmx=off", "--shared-disks", "a", "b", "--json"];
  const { stdout } = await run("guest", "attach", "web1", ...flags);
  expect(JSON.parse(stdout)).toEqual(GUEST);
  expect(JSON.parse(agent.seen(ATTACH)[0]!.body)).toEqual({
    ...{ name: "web1", attach: { qmp: "/q" }, cpu: "qemu64,vmx=off" },
    disks: [
      { id: "a", mode: "shared" },
      { id: "b", mode: "shared" },
    ],
  });
});

test("attach without a monitor asks nobody", async () => {
  const { exitCode, stderr } = await run("guest", "attach", "web1");
  expect(exitCode).toBe(EXIT_CODE.usage);
  expect(stderr).toContain("--qmp");
  expect(agent.seen(ATTACH)).toEqual([]);
});

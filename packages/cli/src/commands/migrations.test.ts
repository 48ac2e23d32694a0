import { afterEach, beforeEach, expect, test } from "vitest";
import { runCommand } from "../command-fixture.ts";
import { FakeAgent, sampleDisk, sampleMigration } from "../fake-agent.ts";

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
});

afterEach(async () => {
  await agent.close();
});

async function shown(changes: Parameters<typeof sampleMigration>[0]): Promise<string> {
  agent.answer("GET /v1/migrations/m1", { status: 200, body: sampleMigration(changes) });
  return (await runCommand(["show", "m1"], { api: agent.url })).stdout;
}

test("show tells what of a guest's memory is on the share, and who is still needed", async () => {
  const disks = [sampleDisk({ remainingBytes: 4096 })];
  expect(await shown({ phase: "post-copy", fallback: "complete", disks })).toMatch(
    /on the share +file of pages complete\. All of the memory .*; its disks still need the source/,
  );
  expect(await shown({ phase: "post-copy", fallback: "growing" })).toMatch(
    /on the share +file of pages growing\n/,
  );
});

test("show says nothing of a share where nothing goes by one", async () => {
  expect(await shown({ phase: "post-copy" })).not.toContain("share");
});

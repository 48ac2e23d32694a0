// The real command in a process of its own, against an agent that is made up.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Migration } from "../api/migration.ts";
import {
  runCommand,
  startCommand,
  type CommandOutcome,
  type RunningCommand,
} from "../command-fixture.ts";
import { EXIT_CODE } from "../exit-code.ts";
import {
  cancelledMigration,
  completedMigration,
  eventOf,
  FakeAgent,
  sampleMigration,
} from "../fake-agent.ts";

const START = "POST /v1/migrations";
const CANCEL = "DELETE /v1/migrations/m1";
const STREAM = "GET /v1/migrations/m1/events";

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
});

afterEach(async () => {
  await agent.close();
});

function run(words: readonly string[]): Promise<CommandOutcome> {
  return runCommand(words, { api: agent.url });
}

function start(words: readonly string[]): RunningCommand {
  return startCommand(words, { api: agent.url });
}

function accept(migration = sampleMigration({ phase: "preparing" })): void {
  agent.answer(START, { status: 202, body: migration });
}

function failedMigration(): Migration {
  const error = { code: "peer-lost", detail: "The link was lost." };
  return sampleMigration({ phase: "failed", error });
}

describe("migrate", () => {
  test("asks for what the flags say and follows the migration to its end", async () => {
    accept();
    agent.publish(eventOf(sampleMigration(), { id: 1, seconds: 0.2 }));
    agent.publish(eventOf(completedMigration(), { id: 2, seconds: 4.2 }));
    const words = ["--downtime", "50ms", "--bandwidth", "100MB/s", "--on-stall", "cancel"];
    const { exitCode, stdout, stderr } = await run(["migrate", "web1", "host-b", ...words]);
    expect({ exitCode, stderr }).toEqual({ exitCode: EXIT_CODE.ok, stderr: "" });
    expect(JSON.parse(agent.seen(START)[0]!.body)).toEqual({
      guest: "web1",
      destination: "host-b",
      onStall: "cancel",
      limits: { downtimeMsMax: 50, bandwidthBytesPerSecond: 100_000_000 },
    });
    expect(stdout.split("\n")).toEqual([
      expect.stringMatching(/^ {3}0\.2 s {2}pre-copy {2}sent 312 MiB/),
      "   4.2 s  completed",
      expect.stringMatching(/^completed: web1 runs at host-b\. total 4\.20 s, downtime 38 ms,/),
      "",
    ]);
  });

  test("leaves every limit to the agent that no flag sets", async () => {
    accept();
    await run(["migrate", "web1", "host-b", "--detach"]);
    expect(JSON.parse(agent.seen(START)[0]!.body)).toEqual({
      guest: "web1",
      destination: "host-b",
      limits: {},
    });
  });

  test("fails when the migration does, and tells where the guest is", async () => {
    accept();
    agent.publish(eventOf(failedMigration()));
    agent.answer("GET /v1/guests/web1", { status: 200, body: { state: "running" } });
    const { exitCode, stdout } = await run(["migrate", "web1", "host-b"]);
    expect(exitCode).toBe(EXIT_CODE.failed);
    expect(stdout).toContain(
      "failed: web1 was not moved to host-b: The link was lost. (peer-lost)\n" +
        "web1 is running at the source.\n",
    );
  });

  test("has an exit code of its own for a migration that somebody cancelled", async () => {
    accept();
    agent.publish(eventOf(cancelledMigration()));
    expect((await run(["migrate", "web1", "host-b"])).exitCode).toBe(EXIT_CODE.cancelled);
  });

  test("does not wait with --detach", async () => {
    accept();
    const { exitCode, stdout } = await run(["migrate", "web1", "host-b", "--detach"]);
    expect(exitCode).toBe(EXIT_CODE.ok);
    expect(stdout).toContain("vmferry watch m1");
    expect(agent.seen(STREAM)).toEqual([]);
  });

  test("prints events and the migration as JSON, and nothing else", async () => {
    accept();
    const events = [
      eventOf(sampleMigration(), { id: 1 }),
      eventOf(completedMigration(), { id: 2 }),
    ];
    for (const event of events) agent.publish(event);
    const { stdout } = await run(["migrate", "web1", "host-b", "--json"]);
    const lines = stdout.trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      ...events,
      completedMigration(),
    ]);
  });

  test.each([
    { status: 404, code: "guest-not-found", exitCode: EXIT_CODE.refused },
    { status: 409, code: "migration-active", exitCode: EXIT_CODE.refused },
    { status: 422, code: "destination-unknown", exitCode: EXIT_CODE.refused },
    { status: 401, code: "unauthorized", exitCode: EXIT_CODE.failed },
    { status: 500, code: "internal", exitCode: EXIT_CODE.failed },
  ])("ends with $exitCode when the agent answers $status", async ({ status, code, exitCode }) => {
    agent.refuse(START, status, { code });
    const outcome = await run(["migrate", "web1", "host-b"]);
    expect(outcome.exitCode).toBe(exitCode);
    expect(outcome.stderr).toContain(`Not so. (${code})`);
    expect(outcome.stdout).toBe("");
  });

  test("calls a field that the agent refuses by its flag", async () => {
    const errors = [{ field: "limits.downtimeMsMax", detail: "must be <= 3600000" }];
    agent.refuse(START, 400, { code: "invalid-request", errors });
    const { exitCode, stderr } = await run(["migrate", "web1", "host-b", "--downtime", "2h"]);
    expect(exitCode).toBe(EXIT_CODE.usage);
    expect(stderr).toBe("vmferry: --downtime must be <= 3600000\n");
  });
});

describe("Ctrl-C", () => {
  test("once asks to cancel, and the migration is followed to its end", async () => {
    accept();
    agent.answer(CANCEL, { status: 202, body: sampleMigration() });
    const command = start(["migrate", "web1", "host-b"]);
    agent.publish(eventOf(sampleMigration(), { id: 1 }));
    await command.says("pre-copy");
    command.interrupt();
    await agent.waitFor(CANCEL);
    agent.publish(eventOf(cancelledMigration(), { id: 2 }));
    const { exitCode, stdout } = await command.done;
    expect(exitCode).toBe(EXIT_CODE.cancelled);
    expect(stdout).toContain("Ctrl-C again leaves the migration alone.");
    expect(agent.seen(CANCEL)).toHaveLength(1);
  });

  test("twice leaves the migration alone", async () => {
    accept();
    agent.answer(CANCEL, { status: 202, body: sampleMigration() });
    const command = start(["migrate", "web1", "host-b"]);
    agent.publish(eventOf(sampleMigration()));
    await command.says("pre-copy");
    command.interrupt();
    await agent.waitFor(CANCEL);
    command.interrupt();
    const { exitCode, stdout } = await command.done;
    expect(exitCode).toBe(EXIT_CODE.interrupted);
    expect(stdout).toContain("vmferry watch m1");
  });

  test("twice ends the command also where the agent does not answer any more", async () => {
    accept();
    const { promise: never } = Promise.withResolvers<never>();
    agent.answer(CANCEL, () => never);
    const command = start(["migrate", "web1", "host-b"]);
    agent.publish(eventOf(sampleMigration()));
    await command.says("pre-copy");
    command.interrupt();
    await command.says("Asking the agent to cancel");
    const startedMs = performance.now();
    command.interrupt();
    expect((await command.done).exitCode).toBe(EXIT_CODE.interrupted);
    expect(performance.now() - startedMs).toBeLessThan(10_000);
  });

  test("that comes too late is told, and the migration goes on to its end", async () => {
    accept();
    agent.refuse(CANCEL, 409, { code: "past-hand-over", detail: "The guest has gone." });
    const command = start(["migrate", "web1", "host-b"]);
    agent.publish(eventOf(sampleMigration({ phase: "handing-over" }), { id: 1 }));
    await command.says("handing-over");
    command.interrupt();
    await command.says("It cannot be cancelled any more: The guest has gone. (past-hand-over)");
    agent.publish(eventOf(completedMigration(), { id: 2 }));
    expect((await command.done).exitCode).toBe(EXIT_CODE.ok);
  });

  test("that the agent does not get to hear is told to it as soon as it answers again", async () => {
    accept();
    const command = start(["migrate", "web1", "host-b"]);
    agent.publish(eventOf(sampleMigration(), { id: 1 }));
    await command.says("pre-copy");
    agent.answer(CANCEL, { status: 502, body: "<html>", type: "text/html" });
    command.interrupt();
    await command.says("it is asked to cancel as soon as it does");
    agent.answer(CANCEL, { status: 202, body: sampleMigration() });
    agent.publish(eventOf(sampleMigration(), { id: 2 }));
    await agent.waitFor(CANCEL, 2);
    agent.publish(eventOf(cancelledMigration(), { id: 3 }));
    expect((await command.done).exitCode).toBe(EXIT_CODE.cancelled);
  });

  test("before the agent has answered cancels as soon as there is something to cancel", async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<undefined>();
    agent.answer(START, async () => {
      await released;
      return { status: 202, body: sampleMigration({ phase: "preparing" }) };
    });
    agent.answer(CANCEL, { status: 202, body: sampleMigration() });
    const command = start(["migrate", "web1", "host-b"]);
    await expect.poll(() => agent.seen(START).length, { timeout: 10_000 }).toBe(1);
    command.interrupt();
    await command.says("Asking the agent to cancel");
    release(undefined);
    await agent.waitFor(CANCEL);
    agent.publish(eventOf(cancelledMigration()));
    expect((await command.done).exitCode).toBe(EXIT_CODE.cancelled);
  });

  test("twice before the agent has answered says that nobody knows", async () => {
    const { promise: never } = Promise.withResolvers<never>();
    agent.answer(START, () => never);
    const command = start(["migrate", "web1", "host-b"]);
    await expect.poll(() => agent.seen(START).length, { timeout: 10_000 }).toBe(1);
    command.interrupt();
    await command.says("Asking the agent to cancel");
    command.interrupt();
    const { exitCode, stdout } = await command.done;
    expect(exitCode).toBe(EXIT_CODE.interrupted);
    expect(stdout).toContain("may or may not have begun");
  });

  test("at watch ends the watching and nothing else", async () => {
    const command = start(["watch", "m1"]);
    agent.publish(eventOf(sampleMigration()));
    await command.says("pre-copy");
    command.interrupt();
    const { exitCode, stdout } = await command.done;
    expect(exitCode).toBe(EXIT_CODE.interrupted);
    expect(stdout).toContain("the migration goes on");
    expect(agent.seen(CANCEL)).toEqual([]);
  });
});

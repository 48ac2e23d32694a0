import { afterEach, beforeEach, expect, test } from "vitest";
import { AgentApi } from "../api/agent-api.ts";
import type { Migration, MigrationEvent } from "../api/migration.ts";
import { CliError } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";
import { completedMigration, eventOf, FakeAgent, sampleMigration } from "../fake-agent.ts";
import { followMigration } from "./follow-migration.ts";

const STREAM = "GET /v1/migrations/m1/events";
const MIGRATION = "GET /v1/migrations/m1";

let agent: FakeAgent;
let leaving: AbortController;
let events: MigrationEvent[];
let notices: string[];

beforeEach(async () => {
  agent = await FakeAgent.open();
  leaving = new AbortController();
  events = [];
  notices = [];
});

afterEach(async () => {
  await agent.close();
});

function follow(giveUpMs = 60_000): Promise<Migration> {
  return followMigration({
    api: new AgentApi({ url: new URL(agent.url), token: null }),
    id: "m1",
    onEvent: (event) => events.push(event),
    onNotice: (text) => notices.push(text),
    signal: leaving.signal,
    retry: { firstMs: 1, mostMs: 4, giveUpMs },
  });
}

const ids = (): number[] => events.map(({ id }) => id);

test("a migration is followed to its end over a connection that is cut, without a gap", async () => {
  const following = follow();
  await agent.waitFor(STREAM);
  agent.publish(eventOf(sampleMigration(), { id: 11 }));
  agent.publish(eventOf(sampleMigration(), { id: 12 }));
  await expect.poll(ids).toEqual([11, 12]);
  agent.cutStreams();
  agent.publish(eventOf(sampleMigration(), { id: 13 }));
  agent.publish(eventOf(completedMigration(), { id: 14 }));
  expect(await following).toEqual(completedMigration());
  expect(ids()).toEqual([11, 12, 13, 14]);
  expect(agent.seen(STREAM).map(({ headers }) => headers["last-event-id"])).toEqual([
    undefined,
    "12",
  ]);
  expect(notices).toEqual([
    `Lost the agent at ${agent.url}; trying again.`,
    "The agent answers again.",
  ]);
});

test("an end that no event told is read from the migration", async () => {
  agent.answer(STREAM, { status: 204, body: "" });
  agent.answer(MIGRATION, { status: 200, body: completedMigration() });
  expect(await follow()).toEqual(completedMigration());
});

test("a stream that ends in order before the migration does is opened again", async () => {
  agent.answer(MIGRATION, { status: 200, body: sampleMigration() });
  const following = follow();
  await agent.waitFor(STREAM);
  agent.publish(eventOf(sampleMigration(), { id: 11 }));
  await expect.poll(ids).toEqual([11]);
  agent.endStreams();
  agent.publish(eventOf(completedMigration(), { id: 12 }));
  expect(await following).toEqual(completedMigration());
});

test("an agent that does not come back is given up, and it is said how to go on", async () => {
  const following = follow(30);
  await agent.waitFor(STREAM);
  agent.publish(eventOf(sampleMigration(), { id: 11 }));
  await expect.poll(ids).toEqual([11]);
  await agent.close();
  const error = await following.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(CliError);
  expect((error as CliError).detail.exitCode).toBe(EXIT_CODE.unreachable);
  expect((error as CliError).message).toContain("vmferry watch m1");
  expect(notices).toHaveLength(1);
});

test("an agent that forgot the migration was restarted: then the guest has to be looked for", async () => {
  const following = follow();
  await agent.waitFor(STREAM);
  agent.publish(eventOf(sampleMigration(), { id: 11 }));
  await expect.poll(ids).toEqual([11]);
  agent.refuse(STREAM, 404, { code: "migration-not-found", detail: "No m1 here." });
  agent.cutStreams();
  await expect(following).rejects.toThrow(/No m1 here.*\n.*restarted.*vmferry guest list/);
});

test("a migration that never was is not one that was forgotten", async () => {
  agent.refuse(STREAM, 404, { code: "migration-not-found", detail: "No m1 here." });
  await expect(follow()).rejects.toThrow(/^No m1 here\. \(migration-not-found\)$/);
});

test("following ends at once when that is asked for, also between two tries", async () => {
  const following = follow();
  await agent.waitFor(STREAM);
  leaving.abort();
  await expect(following).rejects.toThrow("aborted");

  leaving = new AbortController();
  agent.answer(STREAM, { status: 502, body: "<html>", type: "text/html" });
  const trying = follow();
  await agent.waitFor(STREAM, 5);
  leaving.abort();
  await expect(trying).rejects.toThrow("aborted");
});

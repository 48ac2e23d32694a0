// What `start` does before there is a migration. The rest needs a QEMU.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  createLogger,
  EventHub,
  MigrationStore,
  ProblemError,
  type Guest,
  type GuestRegistry,
  type JournalShelf,
} from "@vmferry/agent";
import type { HeldSockets } from "@vmferry/block";
import { systemClock as clock } from "@vmferry/core";
import { ScriptedDest } from "../adapters/scripted-dest.ts";
import { sampleGuest, sampleRequest, sampleResult } from "../preflight/sample-preflight.ts";
import { SourceMigrations } from "./source-migrations.ts";

const FAILED = {
  name: "guest-name",
  status: "fail",
  detail: "There is one.",
  hint: "End it.",
} as const;

/** Nothing is begun here. */
const unused: unknown = null;

let directory: string;
let dest: ScriptedDest;
let store: MigrationStore;
let guest: Guest;
let migrations: SourceMigrations;
/** What the dest says, one call a probe. */
let answer: () => Promise<ReturnType<typeof sampleResult>>;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "source-migrations-"));
  answer = () => Promise.resolve(sampleResult({ dateMs: Date.now(), checks: [FAILED] }));
  dest = await ScriptedDest.open((connection) => {
    void (async () => {
      await connection.next();
      const hello = { version: 2, versionMin: 2, software: "test", incarnation: "d1" };
      connection.send({ kind: "hello", ...hello, features: ["probe"] });
      await connection.next();
      connection.send(await answer());
    })();
  });
  store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  const running = { ...sampleGuest(), name: "web1", state: "running", busyWith: null };
  guest = running as unknown as Guest;
  const registry: Pick<GuestRegistry, "find"> = { find: () => guest };
  migrations = new SourceMigrations({
    ...{ store, clock, witness: null, bulkConnections: 1, random: Math.random },
    registry: registry as GuestRegistry,
    journals: unused as JournalShelf<"source">,
    sockets: unused as HeldSockets,
    peers: new Map([["host-b", { url: dest.url, token: null, tls: null }]]),
    identity: { software: "test", incarnation: "s1" },
    logger: createLogger({ role: "source", level: "silent" }),
    ...{
      runDir: directory,
      memoryDir: join(directory, "memory"),
      imageDir: directory,
      sharedDir: null,
    },
  });
});

afterEach(async () => {
  await dest.close();
  await rm(directory, { recursive: true });
});

async function refusalOf(request: Promise<unknown>): Promise<ProblemError> {
  const error: unknown = await request.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ProblemError);
  return error as ProblemError;
}

test("a check that fails refuses the migration: there is none, and the guest is free", async () => {
  const { detail } = await refusalOf(migrations.start(sampleRequest, null));
  expect(detail).toEqual({
    code: "preflight-failed",
    errors: [{ field: "guest-name", detail: "There is one. End it." }],
  });
  expect(store.list({ limit: 10 }).migrations).toEqual([]);
  expect(guest.busyWith).toBeNull();
});

test("a preflight tells of it instead", async () => {
  const { checks } = await migrations.preflight(sampleRequest);
  expect(checks).toContainEqual(FAILED);
  expect(guest.busyWith).toBeNull();
});

test("what the request allows is told as a warning", async () => {
  const memory = { ...FAILED, name: "memory" };
  answer = () => Promise.resolve(sampleResult({ checks: [memory] }));
  const { checks } = await migrations.preflight({ ...sampleRequest, allowUnsafe: ["memory"] });
  expect(checks.find(({ name }) => name === "memory")).toMatchObject({ status: "warn" });
});

test("while it is looked at nobody begins another", async () => {
  const { promise: asked, resolve: isAsked } = Promise.withResolvers<undefined>();
  const { promise, resolve } = Promise.withResolvers<ReturnType<typeof sampleResult>>();
  answer = () => {
    isAsked(undefined);
    return promise;
  };
  const first = migrations.start(sampleRequest, null);
  await asked;
  const second = await refusalOf(migrations.start(sampleRequest, null));
  expect(second.detail.code).toBe("migration-active");
  resolve(sampleResult({ checks: [FAILED] }));
  expect((await refusalOf(first)).detail.code).toBe("preflight-failed");
});

test("an agent that was stopped meanwhile begins nothing", async () => {
  const { promise: asked, resolve: isAsked } = Promise.withResolvers<undefined>();
  const { promise, resolve } = Promise.withResolvers<ReturnType<typeof sampleResult>>();
  answer = () => {
    isAsked(undefined);
    return promise;
  };
  const starting = migrations.start(sampleRequest, null);
  await asked;
  await migrations.stop();
  resolve(sampleResult());
  expect((await refusalOf(starting)).detail.code).toBe("agent-stopped");
  expect(store.list({ limit: 10 }).migrations).toEqual([]);
});

import { getEventListeners } from "node:events";
import { InvariantError } from "@vmferry/core";
import type { AgentEvent, MigrationObject } from "@vmferry/protocol";
import { describe, expect, test } from "vitest";
import { EventHub } from "../events/event-hub.ts";
import { ManualClock } from "../events/manual-clock.ts";
import {
  MigrationStore,
  type MigrationOutcome,
  type MigrationStoreOptions,
} from "./migration-store.ts";
import { endedMigration } from "./ended-migration.ts";
import { newMigrationObject } from "./new-migration-object.ts";

const COMPLETED: MigrationOutcome = {
  phase: "completed",
  result: { downtimeMs: 42, totalMs: 9000, wireBytes: 7, ramDigest: "ab", diskDigests: {} },
};
const FAILED: MigrationOutcome = {
  phase: "failed",
  error: { code: "peer-lost", detail: "host-b has not answered for 30 s." },
};

interface Bench {
  readonly clock: ManualClock;
  readonly hub: EventHub;
  readonly store: MigrationStore;
}

function bench(retention: Partial<MigrationStoreOptions> = {}): Bench {
  const clock = new ManualClock();
  const hub = new EventHub({ clock });
  const store = new MigrationStore({ hub, clock, ...retention });
  return { clock, hub, store };
}

function sample(id: string, guest = "web1"): MigrationObject {
  const startedAt = new Date("2030-01-01T00:00:00Z");
  return newMigrationObject({ id, role: "source", guest, destination: "host-b", startedAt });
}

/** Found in a journal, which tells of the end alone. */
function ended(id: string, endedAt: string): MigrationObject {
  const about = { id, role: "source", guest: "web1", destination: "host-b" } as const;
  return endedMigration({ ...about, endedAt: new Date(endedAt), outcome: FAILED });
}

async function published(hub: EventHub): Promise<AgentEvent[]> {
  const subscription = hub.subscribe({ afterId: 0 });
  const events: AgentEvent[] = [];
  while (subscription.pendingCount > 0) {
    const delivery = await subscription.next(0);
    if (typeof delivery !== "string") events.push(delivery);
  }
  subscription.close();
  return events;
}

describe("the life of a migration", () => {
  test("phases are dated, appended and published", async () => {
    const { store, hub, clock } = bench();
    store.create(sample("m1"));
    clock.advance(1250);
    store.phase("m1", "pre-copy");
    clock.advance(1000);
    store.phase("m1", "handing-over", { mayCancel: false });
    const expected = [
      { phase: "preparing", at: "2030-01-01T00:00:00.000Z" },
      { phase: "pre-copy", at: "2030-01-01T00:00:01.250Z" },
      { phase: "handing-over", at: "2030-01-01T00:00:02.250Z" },
    ];
    expect(store.get("m1")).toMatchObject({
      phase: "handing-over",
      phases: expected,
      mayCancel: false,
    });
    const events = await published(hub);
    expect(events.map(({ type }) => type)).toEqual(Array(3).fill("migration.phase"));
    expect(events.at(-1)).toMatchObject({ migration: { phases: expected } });
  });

  test("an update changes what it names and is published as progress", async () => {
    const { store, hub } = bench();
    store.create(sample("m1"));
    const before = store.get("m1");
    store.update("m1", ({ wire }) => ({ wire: { ...wire, bytes: 5 }, etaMs: 700 }));
    expect(store.get("m1")).toEqual({
      ...before,
      wire: { bytes: 5, bytesPerSecond: null, reconnects: 0 },
      etaMs: 700,
    });
    expect(before.wire.bytes).toBe(0);
    expect((await published(hub)).at(-1)).toMatchObject({
      type: "migration.progress",
      migration: { etaMs: 700 },
    });
  });

  test("passes and warnings are published with the object", async () => {
    const { store, hub } = bench();
    store.create(sample("m1"));
    store.pass("m1", { predictedDowntimeMs: 12 });
    store.warn("m1", { code: "not-converging", detail: "The guest writes faster." });
    const [, pass, warning] = await published(hub);
    expect(pass).toMatchObject({
      type: "migration.pass",
      migration: { id: "m1", predictedDowntimeMs: 12 },
    });
    expect(warning).toMatchObject({
      type: "migration.warning",
      migration: { id: "m1" },
      warning: { code: "not-converging" },
    });
  });

  test.each([
    [COMPLETED, "migration.completed", { result: { downtimeMs: 42 }, error: null }],
    [FAILED, "migration.failed", { result: null, error: { code: "peer-lost" } }],
    [
      { phase: "cancelled", error: { code: "cancelled", detail: "Asked for." } } as const,
      "migration.cancelled",
      { result: null, error: { code: "cancelled" } },
    ],
  ])("%j is published as its final event", async (outcome, type, expected) => {
    const { store, hub } = bench();
    store.create(sample("m1"));
    store.update("m1", () => ({ etaMs: 5 }));
    store.finish("m1", outcome, { predictedDowntimeMs: 3 });
    const final = { ...expected, phase: outcome.phase, mayCancel: false, etaMs: null };
    expect(store.get("m1")).toMatchObject({ ...final, predictedDowntimeMs: 3 });
    expect(store.get("m1").phases.at(-1)).toMatchObject({ phase: outcome.phase });
    expect((await published(hub)).at(-1)).toMatchObject({ type, migration: final });
  });

  test("a finished migration does not change any more", () => {
    const { store } = bench();
    store.create(sample("m1"));
    store.finish("m1", COMPLETED);
    expect(() => {
      store.finish("m1", FAILED);
    }).toThrow(InvariantError);
    expect(() => {
      store.phase("m1", "pre-copy");
    }).toThrow(InvariantError);
    expect(() => {
      store.update("m1", () => ({ etaMs: 1 }));
    }).toThrow(InvariantError);
  });

  test("an id is used once", () => {
    const { store } = bench();
    store.create(sample("m1"));
    expect(() => {
      store.create(sample("m1"));
    }).toThrow(InvariantError);
  });

  test("a migration that comes back from a journal as finished is published as that", async () => {
    const { store, hub } = bench();
    store.create({ ...sample("m1"), phase: "failed" });
    expect((await published(hub)).map(({ type }) => type)).toEqual(["migration.failed"]);
  });
});

describe("finding migrations", () => {
  test("an unknown id is an expected failure", () => {
    const { store } = bench();
    expect(() => store.get("nope")).toThrow(
      expect.objectContaining({ code: "migration-not-found" }),
    );
  });

  test("the active migration of a guest is the one that has not ended", () => {
    const { store } = bench();
    store.create(sample("m1"));
    store.create(sample("m2", "other"));
    store.finish("m1", FAILED);
    expect(store.activeOf("web1")).toBeNull();
    store.create(sample("m3"));
    expect(store.activeOf("web1")?.id).toBe("m3");
  });

  test("pages run from new to old and stay what they are while migrations begin", () => {
    const { store } = bench();
    for (let n = 1; n <= 5; n++) store.create(sample(`m${n}`));
    const first = store.list({ limit: 2 });
    expect(first.migrations.map(({ id }) => id)).toEqual(["m5", "m4"]);
    store.create(sample("m6"));
    const second = store.list({ limit: 2, cursor: first.nextCursor! });
    expect(second.migrations.map(({ id }) => id)).toEqual(["m3", "m2"]);
    const third = store.list({ limit: 2, cursor: second.nextCursor! });
    expect(third.migrations.map(({ id }) => id)).toEqual(["m1"]);
    expect(third.nextCursor).toBeNull();
  });

  test("one that was found later stands where its time says, on whichever page that is", () => {
    const { store, clock } = bench();
    store.create(sample("m1"));
    clock.advance(60_000);
    store.create(sample("m3"));
    const { nextCursor } = store.list({ limit: 1 });
    store.restore([ended("m2", "2030-01-01T00:00:30Z"), ended("m0", "2029-12-31T00:00:00Z")]);
    const ids = (cursor?: string): string[] =>
      store.list({ limit: 10, cursor }).migrations.map(({ id }) => id);
    expect(ids()).toEqual(["m3", "m2", "m1", "m0"]);
    expect(ids(nextCursor!)).toEqual(["m2", "m1", "m0"]);
  });

  test("one that begins is the newest, whatever the clock said before", () => {
    const { store } = bench();
    store.restore([ended("m1", "2031-01-01T00:00:00Z")]);
    store.create(sample("m2"));
    store.create(sample("m3"));
    const { migrations, nextCursor } = store.list({ limit: 2 });
    expect(migrations.map(({ id }) => id)).toEqual(["m3", "m2"]);
    const rest = store.list({ limit: 2, cursor: nextCursor! }).migrations;
    expect(rest.map(({ id }) => id)).toEqual(["m1"]);
  });

  test("a last page that is full has no next one", () => {
    const { store } = bench();
    for (let n = 1; n <= 2; n++) store.create(sample(`m${n}`));
    expect(store.list({ limit: 2 }).nextCursor).toBeNull();
  });

  test.each(["", "x", "MQ==x!", "MQ", "MS4", "MS4xLjE", "MS4x!", "MS4wMQ", "SW5maW5pdHkuMQ"])(
    "%j is no cursor",
    (cursor) => {
      const { store } = bench();
      expect(() => store.list({ limit: 1, cursor })).toThrow(
        expect.objectContaining({ code: "invalid-request" }),
      );
    },
  );

  test("of finished migrations the longest finished are dropped, of active ones none", () => {
    const { store } = bench({ finishedMax: 2 });
    for (let n = 1; n <= 6; n++) store.create(sample(`m${n}`));
    for (const id of ["m4", "m2", "m3", "m6"]) store.finish(id, COMPLETED);
    expect(store.list({ limit: 10 }).migrations.map(({ id }) => id)).toEqual([
      "m6",
      "m5",
      "m3",
      "m1",
    ]);
  });

  test("a finished migration is dropped when its time is up, an active one never", () => {
    const { store, clock } = bench({ finishedMsMax: 1000 });
    for (const id of ["m1", "m2", "m3"]) store.create(sample(id));
    store.finish("m2", COMPLETED);
    clock.advance(500);
    store.finish("m3", FAILED);
    clock.advance(500);
    expect(store.get("m2").phase).toBe("completed");
    clock.advance(1);
    expect(() => store.get("m2")).toThrow(expect.objectContaining({ code: "migration-not-found" }));
    expect(store.list({ limit: 10 }).migrations.map(({ id }) => id)).toEqual(["m3", "m1"]);
    clock.advance(100_000);
    expect(store.list({ limit: 10 }).migrations.map(({ id }) => id)).toEqual(["m1"]);
  });
});

describe("waiting", () => {
  test("ends with the final object", async () => {
    const { store, clock } = bench();
    store.create(sample("m1"));
    const waits = [store.wait("m1", 5000), store.wait("m1", 9000)];
    clock.advance(100);
    store.finish("m1", COMPLETED);
    for (const object of await Promise.all(waits)) expect(object.phase).toBe("completed");
    expect(clock.timerCount).toBe(0);
  });

  test("ends with the object as it is when the time is up", async () => {
    const { store, clock } = bench();
    store.create(sample("m1"));
    const waiting = store.wait("m1", 5000);
    store.inDoubt("m1", "look at host-b");
    clock.advance(5000);
    expect((await waiting).phase).toBe("in-doubt");
  });

  test("a doubt says what to do until it is over", () => {
    const { store } = bench();
    store.create(sample("m1"));
    store.inDoubt("m1", "look at host-b");
    store.inDoubt("m1", "look at host-b");
    const doubt = store.get("m1");
    expect(doubt.error).toEqual({ code: "in-doubt", detail: "look at host-b" });
    expect(doubt.phases.map(({ phase }) => phase)).toEqual(["preparing", "in-doubt"]);
    store.phase("m1", "completing");
    expect(store.get("m1").error).toBeNull();
  });

  test("ends when the caller has gone, and leaves nothing behind", async () => {
    const { store, clock } = bench();
    store.create(sample("m1"));
    const controller = new AbortController();
    const waiting = store.wait("m1", 5000, controller.signal);
    controller.abort();
    expect((await waiting).phase).toBe("preparing");
    expect(clock.timerCount).toBe(0);
  });

  test("does not stay with a caller's signal after its end", async () => {
    const { store } = bench();
    store.create(sample("m1"));
    const { signal } = new AbortController();
    const waiting = store.wait("m1", 5000, signal);
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    store.finish("m1", COMPLETED);
    await waiting;
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
  });

  test("does not wait for a migration that has ended, nor for a caller that has gone", async () => {
    const { store, clock } = bench();
    store.create(sample("m1"));
    expect((await store.wait("m1", 5000, AbortSignal.abort())).phase).toBe("preparing");
    store.finish("m1", COMPLETED);
    expect((await store.wait("m1", 5000)).phase).toBe("completed");
    expect(clock.timerCount).toBe(0);
  });

  test("for a migration that nobody knows fails", async () => {
    const { store } = bench();
    await expect(store.wait("nope", 0)).rejects.toThrow(
      expect.objectContaining({ code: "migration-not-found" }),
    );
  });
});

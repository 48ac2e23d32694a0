import type { AgentEvent, EventBody, GuestObject, MigrationObject } from "@vmferry/protocol";
import { describe, expect, test } from "vitest";
import { newMigrationObject } from "../migrations/new-migration-object.ts";
import { EventHub, type EventHubOptions } from "./event-hub.ts";
import type { EventDelivery, EventSubscription } from "./event-subscription.ts";
import { ManualClock } from "./manual-clock.ts";

type MigrationEventType = Exclude<EventBody["type"], "guest.state" | "migration.warning">;

class Bench {
  readonly clock = new ManualClock();
  readonly hub: EventHub;

  constructor(options: Partial<EventHubOptions> = {}) {
    this.hub = new EventHub({ clock: this.clock, ...options });
  }

  /** Publishes an event about the migration whose wire has carried so many bytes. */
  publish(type: MigrationEventType, id = "m1", bytes = 0): void {
    this.hub.publish({ type, migration: migration(id, bytes) });
  }
}

function migration(id: string, bytes: number): MigrationObject {
  const startedAt = new Date(0);
  const object = newMigrationObject({
    id,
    role: "source",
    guest: "web1",
    destination: "host-b",
    startedAt,
  });
  return { ...object, wire: { ...object.wire, bytes } };
}

/** What waits for the listener right now. */
async function drain(subscription: EventSubscription): Promise<AgentEvent[]> {
  const events: AgentEvent[] = [];
  while (subscription.pendingCount > 0) {
    const delivery = await subscription.next(1000);
    if (typeof delivery !== "string") events.push(delivery);
  }
  return events;
}

function bytesOf(event: AgentEvent): number {
  return "migration" in event ? event.migration.wire.bytes : NaN;
}

describe("listening", () => {
  test("a listener gets what is published from then on, with growing ids and the date", async () => {
    const { hub, clock, publish } = bind(new Bench());
    publish("migration.phase");
    const subscription = hub.subscribe();
    clock.advance(1500);
    publish("migration.pass");
    hub.publish({ type: "guest.state", guest: { name: "web1" } as GuestObject });
    const events = await drain(subscription);
    expect(events.map(({ type }) => type)).toEqual(["migration.pass", "guest.state"]);
    expect(events[0]!.at).toBe("2030-01-01T00:00:01.500Z");
    expect(events[1]!.id).toBeGreaterThan(events[0]!.id);
  });

  test("a restarted agent goes on with greater ids than it had", async () => {
    const before = new Bench();
    const first = before.hub.subscribe();
    for (let n = 0; n < 100; n++) before.publish("migration.pass");
    const after = new EventHub({ clock: new ManualClock(before.clock.date().getTime() + 1000) });
    const second = after.subscribe();
    after.publish({ type: "migration.phase", migration: migration("m1", 0) });
    const [lastBefore] = (await drain(first)).slice(-1);
    const [firstAfter] = await drain(second);
    expect(firstAfter!.id).toBeGreaterThan(lastBefore!.id);
  });

  test("a listener that waits is woken, and told when nothing comes", async () => {
    const { hub, clock, publish } = bind(new Bench());
    const subscription = hub.subscribe();
    const woken = subscription.next(1000);
    publish("migration.phase");
    expect(await woken).toMatchObject({ type: "migration.phase" });
    const idle = subscription.next(1000);
    clock.advance(1000);
    expect(await idle).toBe("idle");
    expect(clock.timerCount).toBe(0);
  });

  test("closing the hub ends every subscription, also one that waits", async () => {
    const { hub, clock } = bind(new Bench());
    const waiting = hub.subscribe().next(1000);
    hub.close();
    expect(await waiting).toBe("ended");
    expect(hub.subscriptionCount).toBe(0);
    expect(clock.timerCount).toBe(0);
  });

  test("a subscription that was closed gets nothing and costs nothing", async () => {
    const { hub, publish } = bind(new Bench());
    const subscription = hub.subscribe();
    subscription.close();
    publish("migration.phase");
    expect(hub.subscriptionCount).toBe(0);
    expect(await subscription.next(1000)).toBe("ended");
  });
});

describe("one migration", () => {
  test("its listener gets its events and no others, and the end after the final one", async () => {
    const { hub, publish } = bind(new Bench());
    const subscription = hub.subscribe({ migrationId: "m1" });
    publish("migration.phase", "m1");
    publish("migration.completed", "m2");
    hub.publish({ type: "guest.state", guest: { name: "web1" } as GuestObject });
    publish("migration.failed", "m1");
    publish("migration.phase", "m1");
    const types = (await drain(subscription)).map(({ type }) => type);
    expect(types).toEqual(["migration.phase", "migration.failed"]);
    expect(await subscription.next(1000)).toBe("ended");
    expect(hub.subscriptionCount).toBe(0);
  });

  test("its end is replayed to whoever comes later", async () => {
    const { hub, publish } = bind(new Bench());
    publish("migration.phase");
    publish("migration.completed");
    const subscription = hub.subscribe({ migrationId: "m1", afterId: 0 });
    expect(await drain(subscription)).toHaveLength(2);
    expect(await subscription.next(1000)).toBe("ended");
  });

  test("its end is still known when thousands of events have passed since", async () => {
    const { hub, publish } = bind(new Bench({ replayEventsMax: 4 }));
    publish("migration.completed", "m1");
    for (let n = 0; n < 10; n++) publish("migration.pass", "m2");
    const subscription = hub.subscribe({ migrationId: "m1", afterId: 0 });
    expect((await drain(subscription)).map(({ type }) => type)).toEqual(["migration.completed"]);
  });

  test("whoever has seen its end is told at once that nothing will come", async () => {
    const { hub, publish } = bind(new Bench());
    publish("migration.completed");
    const all = hub.subscribe({ afterId: 0 });
    const [final] = await drain(all);
    all.close();
    const subscription = hub.subscribe({ migrationId: "m1", afterId: final!.id });
    expect(subscription.exhausted).toBe(true);
    expect(hub.subscriptionCount).toBe(0);
  });
});

describe("replay", () => {
  test("what came after the id is replayed in order, then the stream goes on", async () => {
    const { hub, publish } = bind(new Bench());
    const all = hub.subscribe();
    for (const bytes of [1, 2, 3]) publish("migration.pass", "m1", bytes);
    const seen = (await drain(all))[0]!;
    const resumed = hub.subscribe({ afterId: seen.id });
    publish("migration.pass", "m1", 4);
    expect((await drain(resumed)).map(bytesOf)).toEqual([2, 3, 4]);
  });

  test("of progress, the latest of each migration is replayed, in the order of ids", async () => {
    const { hub, clock, publish } = bind(new Bench());
    publish("migration.progress", "m1", 1);
    publish("migration.progress", "m2", 2);
    clock.advance(250);
    publish("migration.progress", "m1", 3);
    publish("migration.pass", "m3", 4);
    const replayed = await drain(hub.subscribe({ afterId: 0 }));
    expect(replayed.map(bytesOf)).toEqual([2, 3, 4]);
  });

  test("as much is kept as was agreed, and no more", async () => {
    const { hub, publish } = bind(new Bench({ replayEventsMax: 3, replayMigrationsMax: 1 }));
    for (let n = 1; n <= 10; n++) publish("migration.pass", `m${n}`, n);
    expect((await drain(hub.subscribe({ afterId: 0 }))).map(bytesOf)).toEqual([8, 9, 10]);
  });

  test("of migrations, the longest unchanged is the one that is no longer kept", async () => {
    const { hub, publish } = bind(new Bench({ replayEventsMax: 0, replayMigrationsMax: 2 }));
    for (const [id, bytes] of Object.entries({ m1: 1, m2: 2 }))
      publish("migration.phase", id, bytes);
    publish("migration.pass", "m1", 3);
    publish("migration.phase", "m3", 4);
    expect((await drain(hub.subscribe({ afterId: 0 }))).map(bytesOf)).toEqual([3, 4]);
  });

  test("an id that lies ahead is from another time, and everything is replayed", async () => {
    const { hub, publish } = bind(new Bench());
    publish("migration.phase");
    expect(await drain(hub.subscribe({ afterId: Number.MAX_SAFE_INTEGER }))).toHaveLength(1);
  });
});

describe("the pace of progress", () => {
  test("four events a second and migration are enough; the last value always comes", async () => {
    const { hub, clock, publish } = bind(new Bench());
    const subscription = hub.subscribe();
    const received: AgentEvent[] = [];
    for (let ms = 0; ms < 1000; ms += 10) {
      publish("migration.progress", "m1", ms);
      received.push(...(await drain(subscription)));
      clock.advance(10);
    }
    received.push(...(await drain(subscription)));
    expect(received.map(bytesOf)).toEqual([0, 240, 490, 740, 990]);
    expect(received.map(({ at }) => Date.parse(at) % 1_000_000)).toEqual(
      [0, 250, 500, 750, 1000].map((ms) => (Date.parse("2030-01-01T00:00:00Z") + ms) % 1_000_000),
    );
    clock.advance(10_000);
    expect(await drain(subscription)).toEqual([]);
  });

  test("migrations do not share a pace", async () => {
    const { hub, publish } = bind(new Bench());
    const subscription = hub.subscribe();
    publish("migration.progress", "m1");
    publish("migration.progress", "m2");
    expect(await drain(subscription)).toHaveLength(2);
  });

  test("progress that waited is not told after a phase that it did not know", async () => {
    const { hub, clock, publish } = bind(new Bench());
    const subscription = hub.subscribe();
    publish("migration.progress", "m1", 1);
    publish("migration.progress", "m1", 2);
    publish("migration.phase", "m1", 3);
    clock.advance(1000);
    expect((await drain(subscription)).map(bytesOf)).toEqual([1, 3]);
  });

  test("nothing is kept of the pace of a migration that has ended", async () => {
    const { hub, clock, publish } = bind(new Bench());
    const subscription = hub.subscribe();
    publish("migration.progress", "m1", 1);
    publish("migration.progress", "m1", 2);
    publish("migration.cancelled", "m1", 3);
    expect(clock.timerCount).toBe(0);
    clock.advance(1000);
    expect((await drain(subscription)).map(bytesOf)).toEqual([1, 3]);
  });
});

describe("a slow listener", () => {
  test("loses progress but the latest, and nothing else", async () => {
    const { hub, clock, publish } = bind(new Bench());
    const slow = hub.subscribe();
    for (let n = 1; n <= 100; n++) {
      publish("migration.progress", "m1", n);
      if (n % 10 === 0) publish("migration.pass", "m1", n);
      clock.advance(250);
    }
    const events = await drain(slow);
    const passes = events.filter(({ type }) => type === "migration.pass");
    const progress = events.filter(({ type }) => type === "migration.progress");
    expect(passes.map(bytesOf)).toEqual([10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    expect(progress.map(bytesOf)).toEqual([100]);
    expect(events.map(({ id }) => id)).toEqual(events.map(({ id }) => id).sort((a, b) => a - b));
  });

  test("that lets too much else pile up is given up, and others are not", async () => {
    const { hub, publish } = bind(new Bench({ queueEventsMax: 3 }));
    const slow = hub.subscribe();
    const fast = hub.subscribe();
    const received: EventDelivery[] = [];
    for (let n = 1; n <= 5; n++) {
      publish("migration.pass", "m1", n);
      received.push(await fast.next(1000));
    }
    expect(await slow.next(1000)).toBe("overflowed");
    expect(received.map((event) => bytesOf(event as AgentEvent))).toEqual([1, 2, 3, 4, 5]);
    expect(hub.subscriptionCount).toBe(1);
  });

  test("that was given up gets the rest by its last id", async () => {
    const { hub, publish } = bind(new Bench({ queueEventsMax: 3 }));
    const slow = hub.subscribe();
    publish("migration.pass", "m1", 1);
    const seen = (await slow.next(1000)) as AgentEvent;
    for (let n = 2; n <= 6; n++) publish("migration.pass", "m1", n);
    expect(await slow.next(1000)).toBe("overflowed");
    const resumed = hub.subscribe({ afterId: seen.id });
    expect((await drain(resumed)).map(bytesOf)).toEqual([2, 3, 4, 5, 6]);
  });

  test("may take its time over a replay that is longer than its queue", async () => {
    const { hub, publish } = bind(new Bench({ queueEventsMax: 3 }));
    for (let n = 1; n <= 50; n++) publish("migration.pass", "m1", n);
    const slow = hub.subscribe({ afterId: 0 });
    for (let n = 51; n <= 53; n++) publish("migration.pass", "m1", n);
    expect(await drain(slow)).toHaveLength(53);
  });
});

function bind(bench: Bench): Pick<Bench, "hub" | "clock" | "publish"> {
  return { hub: bench.hub, clock: bench.clock, publish: bench.publish.bind(bench) };
}

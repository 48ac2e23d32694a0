/**
 * Listeners that stop reading, over real sockets. The kernel takes a few megabytes before it pushes
 * back, so these tests publish until they see that it does; objects are padded to get there soon.
 */
import { connect, type AddressInfo, type Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import type { AgentEvent, MigrationObject } from "@vmferry/protocol";
import { afterEach, describe, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { ManualClock } from "../events/manual-clock.ts";
import { createApi, sampleMigration, type Api, type ApiOptions } from "./api-fixture.ts";

const OBJECT_BYTES = 16_384;

interface Bench extends Api {
  readonly port: number;
  /** The agent's ends of the connections. */
  readonly connections: readonly Socket[];
}

const opened: Bench[] = [];
const clients: { destroy(): void }[] = [];

async function listen(options: ApiOptions = {}): Promise<Bench> {
  const api = createApi(options);
  const connections: Socket[] = [];
  api.app.server.on("connection", (socket) => connections.push(socket));
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  const bench = { ...api, connections, port: (api.app.server.address() as AddressInfo).port };
  opened.push(bench);
  return bench;
}

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

async function subscribed({ hub }: Bench): Promise<void> {
  await vi.waitFor(() => {
    expect(hub.subscriptionCount).toBe(1);
  });
}

/** A client of the lines of JSON that has not read anything yet. */
async function connectPaused(bench: Bench, afterId?: number): Promise<Socket> {
  const socket = connect(bench.port, "127.0.0.1").pause();
  clients.push(socket);
  const query = afterId === undefined ? "" : `?after=${afterId}`;
  const headers = "Host: localhost\r\nAccept: application/x-ndjson\r\nConnection: close";
  socket.write(`GET /v1/events${query} HTTP/1.1\r\n${headers}\r\n\r\n`);
  await subscribed(bench);
  return socket;
}

function padded(id: string): MigrationObject {
  return { ...sampleMigration(id), destination: "x".repeat(OBJECT_BYTES) };
}

/** Publishes passes until the condition holds; the event loop has its turn after each. */
async function publishUntil({ hub }: Api, condition: () => boolean): Promise<number> {
  const migration = padded("m1");
  let count = 0;
  for (; !condition(); count++) {
    if (count > 4000) throw new Error("4000 large events made no difference");
    hub.publish({ type: "migration.pass", migration });
    await setImmediate();
  }
  return count;
}

/** Reads until it is enough or the connection ends; gives the events that came in full. */
async function readEvents(
  socket: Socket,
  enough: (events: readonly AgentEvent[]) => boolean,
): Promise<AgentEvent[]> {
  const events: AgentEvent[] = [];
  let pending = "";
  try {
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      const lines = (pending + chunk.toString("latin1")).split("\n");
      pending = lines.pop() ?? "";
      // Everything else is the head of the answer and the lengths of chunks.
      for (const line of lines) {
        if (line.startsWith('{"id":')) events.push(JSON.parse(line) as AgentEvent);
      }
      if (enough(events)) break;
    }
  } catch (error) {
    expect(error).toMatchObject({ code: "ECONNRESET" });
  }
  return events;
}

describe("a listener that does not read", () => {
  test("is cut off when too much waits, and has lost nothing when it comes back", async () => {
    const bench = await listen();
    const slow = await connectPaused(bench);
    const published = await publishUntil(bench, () => bench.hub.subscriptionCount === 0);
    expect(published).toBeGreaterThan(1024);
    await setImmediate();
    expect(bench.connections[0]!.destroyed).toBe(true);
    const first = await readEvents(slow, () => false);
    expect(first.length).toBeGreaterThan(0);
    expect(first.length).toBeLessThan(published - 1024);

    const resumed = await connectPaused(bench, first.at(-1)!.id);
    const second = await readEvents(resumed, ({ length }) => first.length + length === published);
    const ids = [...first, ...second].map(({ id }) => id);
    expect(ids).toEqual(Array.from({ length: published }, (_, n) => ids[0]! + n));
  });

  test("does not make the agent buffer what it has not read", async () => {
    const bench = await listen();
    await connectPaused(bench);
    const [connection] = bench.connections;
    let bufferedMax = 0;
    await publishUntil(bench, () => {
      bufferedMax = Math.max(bufferedMax, connection!.writableLength);
      return bench.hub.subscriptionCount === 0;
    });
    expect(bufferedMax).toBeGreaterThan(OBJECT_BYTES);
    expect(bufferedMax).toBeLessThan(8 * OBJECT_BYTES);
  });

  test("gets the latest progress when it reads again, and all the rest", async () => {
    const clock = new ManualClock();
    const bench = await listen({ clock });
    const slow = await connectPaused(bench);
    // Fill what lies between agent and listener, so that from here on events wait at the agent.
    const passes = await publishUntil(bench, () => bench.connections[0]!.writableNeedDrain);
    bench.store.create(sampleMigration("m2"));
    for (let n = 1; n <= 5; n++) {
      bench.store.update("m2", ({ wire }) => ({ wire: { ...wire, bytes: n } }));
      clock.advance(250);
      await setImmediate();
    }
    const isLatest = (event: AgentEvent | undefined): boolean =>
      event?.type === "migration.progress" && event.migration.wire.bytes === 5;
    const events = await readEvents(slow, (seen) => isLatest(seen.at(-1)));
    const types = events.map(({ type }) => type);
    expect(types.slice(-2)).toEqual(["migration.phase", "migration.progress"]);
    expect(types.filter((type) => type === "migration.pass")).toHaveLength(passes);
    expect(types.filter((type) => type === "migration.progress")).toHaveLength(1);
  });

  test("by WebSocket is cut off in the same way", async () => {
    const bench = await listen();
    const slow = new WebSocket(`ws://127.0.0.1:${bench.port}/v1/events`);
    clients.push({
      destroy: () => {
        slow.terminate();
      },
    });
    slow.on("error", () => undefined);
    await new Promise((resolve) => slow.once("open", resolve));
    slow.pause();
    await subscribed(bench);
    const [connection] = bench.connections;
    let bufferedMax = 0;
    const published = await publishUntil(bench, () => {
      bufferedMax = Math.max(bufferedMax, connection!.writableLength);
      return bench.hub.subscriptionCount === 0;
    });
    expect(published).toBeGreaterThan(1024);
    expect(bufferedMax).toBeLessThan(8 * OBJECT_BYTES);
    await setImmediate();
    expect(connection!.destroyed).toBe(true);
  });

  test("does not hold up whoever publishes", async () => {
    const bench = await listen();
    await connectPaused(bench);
    await publishUntil(bench, () => bench.connections[0]!.writableNeedDrain);
    bench.store.create(sampleMigration("m2"));
    const startedMs = performance.now();
    for (let n = 0; n < 100_000; n++) bench.store.update("m2", () => ({ etaMs: n }));
    // Far from what it takes, and far from what waiting for a socket would take.
    expect(performance.now() - startedMs).toBeLessThan(5000);
  });
});

import { request, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { AgentEvent, MigrationObject } from "@vmferry/protocol";
import { afterEach, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { ManualClock } from "../events/manual-clock.ts";
import { createApi, sampleMigration, type Api } from "./api-fixture.ts";

const SSE = "text/event-stream";
const LINES = "application/x-ndjson";
const LISTENERS_EACH = { [SSE]: 200, [LINES]: 200, sockets: 100 };

/** What each of a kind of listeners has received so far. */
interface Audience {
  readonly received: string[];
  close(): void;
}

const opened: { close(): unknown }[] = [];

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
});

async function listen(clock: ManualClock): Promise<Api & { readonly port: number }> {
  const api = createApi({ clock });
  opened.push({ close: () => api.app.close() });
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  return { ...api, port: (api.app.server.address() as AddressInfo).port };
}

async function stream(port: number, accept: string): Promise<Audience> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const options = { host: "127.0.0.1", port, path: "/v1/events", headers: { accept } };
  const asked = request({ ...options, agent: false }, resolve).on("error", reject);
  asked.end();
  const audience = { received: [] as string[], close: () => asked.destroy() };
  opened.push(audience);
  const response = await promise;
  response.setEncoding("utf8").on("data", (text: string) => audience.received.push(text));
  response.on("error", () => undefined);
  return audience;
}

async function socket(port: number): Promise<Audience> {
  const webSocket = new WebSocket(`ws://127.0.0.1:${port}/v1/events`);
  const received: string[] = [];
  webSocket.on("message", (data: Buffer, isBinary) => {
    received.push(`${isBinary ? "binary" : "text"} ${data.toString()}`);
  });
  const audience = {
    received,
    close: () => {
      webSocket.terminate();
    },
  };
  opened.push(audience);
  await new Promise((resolve, reject) => webSocket.once("open", resolve).once("error", reject));
  return audience;
}

/** A migration that counts how often somebody turns it into JSON. */
function counting(): { readonly migration: MigrationObject; readonly count: () => number } {
  let count = 0;
  const sample = sampleMigration("m1");
  const toJSON = (): MigrationObject => {
    count += 1;
    return sample;
  };
  return { migration: { ...sample, toJSON } as MigrationObject, count: () => count };
}

test("500 listeners of three kinds get an event that is serialised once", async () => {
  const clock = new ManualClock();
  const { hub, port } = await listen(clock);
  const times = <T>(count: number, make: () => Promise<T>): Promise<T[]> =>
    Promise.all(Array.from({ length: count }, make));
  const sse = await times(LISTENERS_EACH[SSE], () => stream(port, SSE));
  const lines = await times(LISTENERS_EACH[LINES], () => stream(port, LINES));
  const sockets = await times(LISTENERS_EACH.sockets, () => socket(port));
  await vi.waitFor(() => {
    expect(hub.subscriptionCount).toBe(500);
  });

  const { migration, count } = counting();
  hub.publish({ type: "migration.phase", migration });
  hub.publish({ type: "migration.progress", migration });
  // Throttled: it takes the place of nothing, and nobody serialises what nobody is told.
  for (let n = 0; n < 1000; n++) hub.publish({ type: "migration.progress", migration });
  const eventsOf = ({ received }: Audience): AgentEvent[] =>
    received
      .join("")
      .split("\n")
      .filter((line) => line.startsWith("data: ") || line.startsWith('{"id"'))
      .map((line) => JSON.parse(line.replace(/^data: /, "")) as AgentEvent);
  await vi.waitFor(() => {
    for (const audience of [...sse, ...lines]) {
      expect(eventsOf(audience).map(({ type }) => type)).toEqual([
        "migration.phase",
        "migration.progress",
      ]);
    }
    for (const { received } of sockets) {
      expect(received).toHaveLength(2);
      expect(received[0]).toMatch(/^text \{"id":/);
    }
  }, 10_000);
  expect(count()).toBe(2);
});

import { request, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import type { AgentEvent } from "@vmferry/protocol";
import { afterEach, describe, expect, test, vi } from "vitest";
import { createApi, sampleMigration, type Api, type ApiOptions } from "./api-fixture.ts";

const opened: Api[] = [];

async function listen(options: ApiOptions = {}): Promise<Api> {
  const api = createApi(options);
  opened.push(api);
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  return api;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

interface Stream {
  readonly response: IncomingMessage;
  /** Blocks of Server-Sent Events or lines, as they come; ends with the connection. */
  readonly blocks: AsyncIterator<string>;
}

/** Opens a stream; resolves with the head of the answer, before any event. */
async function openStream(
  { app }: Api,
  path: string,
  headers: Record<string, string> = {},
): Promise<Stream> {
  const { port } = app.server.address() as AddressInfo;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request({ host: "127.0.0.1", port, path, headers }, resolve).on("error", reject).end();
  const response = await promise;
  return { response, blocks: blocksOf(response) };
}

async function* blocksOf(response: IncomingMessage): AsyncGenerator<string> {
  const lines = response.headers["content-type"] === "application/x-ndjson";
  const block: string[] = [];
  for await (const line of createInterface({ input: response })) {
    if (lines) yield line;
    else if (line === "") yield block.splice(0).join("\n");
    else block.push(line);
  }
}

async function next({ blocks }: Stream): Promise<string | null> {
  const result: IteratorResult<string, unknown> = await blocks.next();
  return result.done === true ? null : result.value;
}

/** The event of a block, after a check that its fields say the same as its data. */
function eventOf(block: string | null): AgentEvent {
  const [id = "", type = "", data = ""] = (block ?? "").split("\n");
  const event = JSON.parse(data.replace(/^data: /, "")) as AgentEvent;
  expect(id).toBe(`id: ${event.id}`);
  expect(type).toBe(`event: ${event.type}`);
  return event;
}

async function rest(stream: Stream): Promise<string[]> {
  const blocks: string[] = [];
  for (let block = await next(stream); block !== null; block = await next(stream)) {
    blocks.push(block);
  }
  return blocks;
}

const FAILED = {
  phase: "failed",
  error: { code: "peer-lost", detail: "gone" },
} as const;

describe("Server-Sent Events", () => {
  test("stand before the first event, which comes when it happens", async () => {
    const api = await listen();
    const stream = await openStream(api, "/v1/events");
    expect(stream.response.statusCode).toBe(200);
    expect(stream.response.headers).toMatchObject({
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      vary: "Accept",
    });
    expect(await next(stream)).toBe("retry: 2000");
    api.store.create(sampleMigration("m1"));
    const event = eventOf(await next(stream));
    expect(event).toMatchObject({
      type: "migration.phase",
      migration: { id: "m1", phase: "preparing" },
    });
    expect(Date.parse(event.at)).toBeGreaterThan(0);
  });

  test("without news show that they live", async () => {
    const stream = await openStream(await listen({ heartbeatMs: 5 }), "/v1/events");
    expect(await next(stream)).toBe("retry: 2000");
    expect(await next(stream)).toBe(": heartbeat");
    expect(await next(stream)).toBe(": heartbeat");
  });

  test.each(["header", "query"])("go on after the id in the %s", async (where) => {
    const api = await listen();
    const first = await openStream(api, "/v1/events");
    await next(first);
    for (const id of ["m1", "m2", "m3"]) api.store.create(sampleMigration(id));
    const seen = eventOf(await next(first));
    const resumed =
      where === "header"
        ? await openStream(api, "/v1/events?after=0", { "last-event-id": String(seen.id) })
        : await openStream(api, `/v1/events?after=${seen.id}`);
    await next(resumed);
    expect(eventOf(await next(resumed))).toMatchObject({ migration: { id: "m2" } });
    expect(eventOf(await next(resumed))).toMatchObject({ migration: { id: "m3" } });
  });

  test("over Connection: close are the same, up to the end", async () => {
    const api = await listen();
    api.store.create(sampleMigration("m1"));
    api.store.finish("m1", FAILED);
    const headers = { connection: "close" };
    const stream = await openStream(api, "/v1/migrations/m1/events", headers);
    expect(stream.response.headers.connection).toBe("close");
    expect(await rest(stream)).toHaveLength(3);
  });

  test("end with the agent", async () => {
    const api = await listen();
    const stream = await openStream(api, "/v1/events");
    await next(stream);
    const ended = rest(stream).catch(() => []);
    await api.app.close();
    expect(await ended).toEqual([]);
    expect(api.hub.subscriptionCount).toBe(0);
  });

  test("of a client that has gone cost nothing any more", async () => {
    const api = await listen();
    const stream = await openStream(api, "/v1/events");
    expect(api.hub.subscriptionCount).toBe(1);
    stream.response.destroy();
    await vi.waitFor(() => {
      expect(api.hub.subscriptionCount).toBe(0);
    });
  });
});

describe("the events of one migration", () => {
  test("begin at its beginning and end with its final event", async () => {
    const api = await listen();
    api.store.create(sampleMigration("m1"));
    api.store.create(sampleMigration("m2", "other"));
    const stream = await openStream(api, "/v1/migrations/m1/events");
    await next(stream);
    expect(eventOf(await next(stream)).type).toBe("migration.phase");
    api.store.phase("m2", "pre-copy");
    api.store.phase("m1", "pre-copy");
    expect(eventOf(await next(stream))).toMatchObject({
      migration: { id: "m1", phase: "pre-copy" },
    });
    api.store.finish("m1", FAILED);
    expect(eventOf(await next(stream)).type).toBe("migration.failed");
    expect(await next(stream)).toBeNull();
    expect(api.hub.subscriptionCount).toBe(0);
  });

  test("that has ended are told once more", async () => {
    const api = await listen();
    api.store.create(sampleMigration("m1"));
    api.store.finish("m1", FAILED);
    const [, created, failed, ...more] = await rest(
      await openStream(api, "/v1/migrations/m1/events"),
    );
    expect(eventOf(created!).type).toBe("migration.phase");
    expect(eventOf(failed!)).toMatchObject({
      type: "migration.failed",
      migration: { error: { code: "peer-lost" } },
    });
    expect(more).toEqual([]);
  });

  test("after its final event are none, which also tells an EventSource to stop", async () => {
    const api = await listen();
    api.store.create(sampleMigration("m1"));
    api.store.finish("m1", FAILED);
    const blocks = await rest(await openStream(api, "/v1/migrations/m1/events"));
    const { id } = eventOf(blocks.at(-1)!);
    const headers = { "last-event-id": String(id) };
    const { response } = await openStream(api, "/v1/migrations/m1/events", headers);
    expect(response.statusCode).toBe(204);
    response.resume();
  });
});

describe("lines of JSON", () => {
  const headers = { accept: "application/x-ndjson" };

  test("are the data of the events, one a line", async () => {
    const api = await listen({ heartbeatMs: 5 });
    const stream = await openStream(api, "/v1/events", headers);
    expect(stream.response.headers["content-type"]).toBe("application/x-ndjson");
    api.store.create(sampleMigration("m1"));
    const line = JSON.parse((await next(stream)) ?? "") as AgentEvent;
    expect(line).toMatchObject({ type: "migration.phase", migration: { id: "m1" } });
    expect(line.id).toBeGreaterThan(0);
  });

  test("end with the final event of their migration", async () => {
    const api = await listen();
    api.store.create(sampleMigration("m1"));
    api.store.finish("m1", FAILED);
    const lines = await rest(await openStream(api, "/v1/migrations/m1/events", headers));
    expect(lines.map((line) => (JSON.parse(line) as AgentEvent).type)).toEqual([
      "migration.phase",
      "migration.failed",
    ]);
  });
});

describe("refusals", () => {
  test("another type than the offered ones is answered with those", async () => {
    const { app } = await listen();
    const answer = await app.inject({ url: "/v1/events", headers: { accept: "text/html" } });
    expect(answer.statusCode).toBe(406);
    expect(answer.headers["content-type"]).toMatch(/^application\/problem\+json/);
    expect(answer.json()).toMatchObject({ code: "not-acceptable" });
    expect(answer.json<{ detail: string }>().detail).toContain("application/x-ndjson");
  });

  test.each([
    ["/v1/events?after=x", {}, "after"],
    ["/v1/events?after=-1", {}, "after"],
    ["/v1/events", { "last-event-id": "1; DROP" }, "last-event-id"],
    ["/v1/events?since=1", {}, "since"],
  ])("%s with %j is no place to go on from", async (url, headers, field) => {
    const { app, hub } = await listen();
    const answer = await app.inject({ url, headers });
    expect(answer.statusCode).toBe(400);
    expect(answer.json()).toMatchObject({ code: "invalid-request", errors: [{ field }] });
    expect(hub.subscriptionCount).toBe(0);
  });

  test("more streams than the agent serves are refused", async () => {
    const api = await listen();
    for (let n = 0; n < 768; n++) api.hub.subscribe();
    const answer = await api.app.inject("/v1/events");
    expect(answer.statusCode).toBe(503);
    expect(answer.json()).toMatchObject({ code: "too-many-streams" });
  });
});

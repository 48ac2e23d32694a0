import { connect as connectTcp, type AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { AgentEvent, Problem } from "@vmferry/protocol";
import { afterEach, describe, expect, test, vi } from "vitest";
import { WebSocket, type ClientOptions } from "ws";
import { createApi, sampleMigration, type Api, type ApiOptions } from "./api-fixture.ts";

const opened: Api[] = [];
const clients: WebSocket[] = [];

async function listen(options: ApiOptions = {}): Promise<Api> {
  const api = createApi(options);
  opened.push(api);
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  return api;
}

afterEach(async () => {
  for (const client of clients.splice(0)) client.terminate();
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

interface Client {
  readonly socket: WebSocket;
  readonly events: AgentEvent[];
  readonly closed: Promise<number>;
}

async function connect({ app }: Api, path: string, options: ClientOptions = {}): Promise<Client> {
  const { port } = app.server.address() as AddressInfo;
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options);
  clients.push(socket);
  const events: AgentEvent[] = [];
  socket.on("message", (data: Buffer, isBinary) => {
    expect(isBinary).toBe(false);
    events.push(JSON.parse(data.toString()) as AgentEvent);
  });
  socket.on("error", () => undefined);
  const closed = new Promise<number>((resolve) => socket.once("close", resolve));
  await new Promise((resolve) => socket.once("open", resolve));
  return { socket, events, closed };
}

interface Refusal {
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly challenge: string | undefined;
  readonly problem: Problem;
}

/** The answer to an upgrade that is refused. */
function refusal({ app }: Api, path: string, options: ClientOptions = {}): Promise<Refusal> {
  const { port } = app.server.address() as AddressInfo;
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options);
  return new Promise((resolve, reject) => {
    socket.on("open", () => {
      socket.terminate();
      reject(new Error("the upgrade was not refused"));
    });
    socket.on("unexpected-response", (_request, response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => (body += chunk.toString()));
      response.on("end", () => {
        const { "content-type": type, "www-authenticate": challenge } = response.headers;
        const problem = JSON.parse(body) as Problem;
        resolve({ status: response.statusCode, type, challenge, problem });
      });
    });
  });
}

const FAILED = { phase: "failed", error: { code: "peer-lost", detail: "gone" } } as const;

describe("events by WebSocket", () => {
  test("are the same as by HTTP, a text frame each", async () => {
    const api = await listen();
    const { events } = await connect(api, "/v1/events");
    api.store.create(sampleMigration("m1"));
    api.store.phase("m1", "pre-copy");
    await vi.waitFor(() => {
      expect(events).toHaveLength(2);
    });
    expect(events[1]).toMatchObject({
      type: "migration.phase",
      migration: { id: "m1", phase: "pre-copy" },
    });
    expect(events[1]!.id).toBeGreaterThan(events[0]!.id);
  });

  test("are not compressed, whatever the client offers", async () => {
    const { socket } = await connect(await listen(), "/v1/events", { perMessageDeflate: true });
    expect(socket.extensions).toBe("");
  });

  test("of one migration begin at its beginning, and its end is a regular close", async () => {
    const api = await listen();
    api.store.create(sampleMigration("m1"));
    const { events, closed } = await connect(api, "/v1/migrations/m1/events");
    api.store.finish("m1", FAILED);
    expect(await closed).toBe(1000);
    expect(events.map(({ type }) => type)).toEqual(["migration.phase", "migration.failed"]);
  });

  test.each(["query", "header"])("go on after the id in the %s", async (where) => {
    const api = await listen();
    const first = await connect(api, "/v1/events");
    for (const id of ["m1", "m2", "m3"]) api.store.create(sampleMigration(id));
    await vi.waitFor(() => {
      expect(first.events).toHaveLength(3);
    });
    const lastId = String(first.events[1]!.id);
    const resumed =
      where === "query"
        ? await connect(api, `/v1/events?after=${lastId}`)
        : await connect(api, "/v1/events", { headers: { "last-event-id": lastId } });
    await vi.waitFor(() => {
      expect(resumed.events).toHaveLength(1);
    });
    expect(resumed.events[0]).toEqual(first.events[2]);
  });

  test("end with the agent", async () => {
    const api = await listen();
    const { closed } = await connect(api, "/v1/events");
    await api.app.close();
    expect(await closed).toBe(1006);
    expect(api.hub.subscriptionCount).toBe(0);
  });
});

describe("a client", () => {
  test("that goes is forgotten", async () => {
    const api = await listen();
    const { socket } = await connect(api, "/v1/events");
    expect(api.hub.subscriptionCount).toBe(1);
    socket.close();
    await vi.waitFor(() => {
      expect(api.hub.subscriptionCount).toBe(0);
    });
  });

  test("that answers the agent's pings stays, and one that does not is cut off", async () => {
    const api = await listen({ heartbeatMs: 20 });
    const silent = await connect(api, "/v1/events", { autoPong: false });
    const alive = await connect(api, "/v1/events");
    let pings = 0;
    alive.socket.on("ping", () => (pings += 1));
    expect(await silent.closed).toBe(1006);
    await vi.waitFor(() => {
      expect(pings).toBeGreaterThan(3);
    });
    expect(alive.socket.readyState).toBe(WebSocket.OPEN);
  });

  test("may ping and talk a little, to no effect", async () => {
    const api = await listen();
    const { socket, events } = await connect(api, "/v1/events");
    const ponged = new Promise((resolve) => socket.once("pong", resolve));
    socket.send("hello");
    socket.ping();
    await ponged;
    api.store.create(sampleMigration("m1"));
    await vi.waitFor(() => {
      expect(events).toHaveLength(1);
    });
  });

  test("that sends more than a kilobyte is closed with the code for that", async () => {
    const { socket, closed } = await connect(await listen(), "/v1/events");
    socket.send("x".repeat(1025));
    expect(await closed).toBe(1009);
  });
});

describe("an upgrade is refused", () => {
  test("without the token, and granted with it", async () => {
    const api = await listen({ apiToken: "secret" });
    expect(await refusal(api, "/v1/events")).toMatchObject({
      status: 401,
      type: "application/problem+json",
      challenge: 'Bearer realm="vmferry"',
      problem: { code: "unauthorized" },
    });
    const wrong = { headers: { authorization: "Bearer secreT" } };
    expect(await refusal(api, "/v1/events", wrong)).toMatchObject({ status: 401 });
    expect(await refusal(api, "/nope")).toMatchObject({ status: 401 });
    const { socket } = await connect(api, "/v1/events", {
      headers: { authorization: "Bearer secret" },
    });
    expect(socket.readyState).toBe(WebSocket.OPEN);
    expect(api.hub.subscriptionCount).toBe(1);
  });

  test.each([
    ["/nope", 404, "not-found"],
    ["/v1/guests", 404, "not-found"],
    ["/healthz", 404, "not-found"],
    ["/v1/migrations/nope/events", 404, "migration-not-found"],
    ["/v1/migrations/a/b/events", 404, "not-found"],
    ["/v1/events?after=x", 400, "invalid-request"],
  ])("on %s", async (path, status, code) => {
    const api = await listen();
    expect(await refusal(api, path)).toMatchObject({ status, problem: { code } });
    expect(api.hub.subscriptionCount).toBe(0);
  });

  test("for a page of another site, and granted to one of this", async () => {
    const api = await listen();
    const evil = { origin: "https://evil.example" };
    expect(await refusal(api, "/v1/events", evil)).toMatchObject({
      status: 403,
      problem: { code: "origin-not-allowed" },
    });
    expect(await refusal(api, "/v1/events", { origin: "null" })).toMatchObject({ status: 403 });
    const { port } = api.app.server.address() as AddressInfo;
    await connect(api, "/v1/events", { origin: `http://127.0.0.1:${port}` });
  });

  test("for a name that a page may have pointed here", async () => {
    const options = { headers: { host: "evil.example" } };
    expect(await refusal(await listen(), "/v1/events", options)).toMatchObject({
      status: 421,
      problem: { code: "host-not-allowed" },
    });
  });

  test("in a handshake that is none, as a problem", async () => {
    const api = await listen();
    const { port } = api.app.server.address() as AddressInfo;
    const socket = connectTcp(port, "127.0.0.1");
    const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
    const key = "Sec-WebSocket-Key: short";
    socket.write(`GET /v1/events HTTP/1.1\r\nHost: localhost\r\n${upgrade}\r\n${key}\r\n\r\n`);
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 400 [^]*"code":"invalid-request"/);
    await vi.waitFor(() => {
      expect(api.hub.subscriptionCount).toBe(0);
    });
  });

  test("when too many streams are open", async () => {
    const api = await listen();
    for (let n = 0; n < 768; n++) api.hub.subscribe();
    expect(await refusal(api, "/v1/events")).toMatchObject({
      status: 503,
      problem: { code: "too-many-streams" },
    });
  });
});

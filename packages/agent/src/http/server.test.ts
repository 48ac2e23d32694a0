import { AgentError } from "@vmferry/core";
import { connect, type AddressInfo } from "node:net";
import type { GuestDefinition, MigrationObject } from "@vmferry/protocol";
import type { InjectOptions } from "fastify";
import { afterEach, describe, expect, test, vi } from "vitest";
import { ProblemError } from "../problem-error.ts";
import {
  createApi,
  SAMPLE_DEFINITION,
  sampleMigration,
  type Api,
  type ApiOptions,
} from "./api-fixture.ts";

const opened: Api[] = [];

function open(options: ApiOptions = {}): Api {
  const api = createApi(options);
  opened.push(api);
  return api;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Record<string, unknown>;
}

async function send({ app }: Api, options: InjectOptions): Promise<Answer> {
  const { statusCode, headers, body } = await app.inject(options);
  return {
    status: statusCode,
    headers,
    body: (body === "" ? {} : JSON.parse(body)) as Record<string, unknown>,
  };
}

const get = (api: Api, url: string): Promise<Answer> => send(api, { method: "GET", url });
const post = (api: Api, url: string, payload: object): Promise<Answer> =>
  send(api, { method: "POST", url, payload });

describe("guests", () => {
  test("are started with their defaults, found, listed and powered off", async () => {
    const api = open();
    const started = await post(api, "/v1/guests", SAMPLE_DEFINITION);
    expect(started.status).toBe(201);
    expect(started.headers["location"]).toBe("/v1/guests/web1");
    expect(started.body).toMatchObject({ name: "web1", state: "running", epoch: 1 });
    expect(api.calls).toEqual([
      {
        ...SAMPLE_DEFINITION,
        accel: "auto",
        cpu: "qemu64",
        vcpus: 1,
        disks: [],
        serial: "file",
      } satisfies GuestDefinition,
    ]);
    expect((await get(api, "/v1/guests/web1")).body).toEqual(started.body);
    expect((await get(api, "/v1/guests")).body).toEqual({ guests: [started.body] });
    const stopped = await send(api, { method: "DELETE", url: "/v1/guests/web1" });
    expect(stopped).toMatchObject({ status: 200, body: { name: "web1", state: "stopped" } });
  });

  test("are attached to where a monitor is named, without defaults that nobody has said", async () => {
    const api = open();
    const body = { name: "web1", attach: { qmp: "/run/web1.sock" }, cpu: "qemu64" };
    const { status, headers, body: guest } = await post(api, "/v1/guests", body);
    expect(status).toBe(201);
    expect(headers["location"]).toBe("/v1/guests/web1");
    expect(guest).toMatchObject({ attached: { qmp: "/run/web1.sock" } });
    expect(api.calls).toEqual([body]);
  });

  test.each([
    ["a monitor that is no path", { attach: { qmp: "web1.sock" } }, "attach.qmp"],
    ["a path that no socket can have", { attach: { qmp: `/${"a".repeat(108)}` } }, "attach.qmp"],
    ["a disk that is described", { attach: { qmp: "/q" }, disks: [{ id: "a" }] }, "disks.0.mode"],
    ["something else besides", { attach: { qmp: "/q" }, serial: "file" }, "serial"],
  ])("are not attached to with %s, and the field is named", async (_, more, field) => {
    const api = open();
    const { status, body } = await post(api, "/v1/guests", { name: "web1", ...more });
    expect(status).toBe(400);
    expect(body).toMatchObject({ code: "invalid-request", errors: [{ field }] });
    expect(api.calls).toEqual([]);
  });

  test("the defaults of a disk are filled in as well", async () => {
    const api = open();
    const disks = [{ id: "disk0", image: "a.raw" }];
    await post(api, "/v1/guests", { ...SAMPLE_DEFINITION, disks });
    expect(api.calls).toMatchObject([{ disks: [{ format: "raw", mode: "copy" }] }]);
  });

  test("that do not exist are a problem", async () => {
    const { status, headers, body } = await get(open(), "/v1/guests/nope");
    expect(status).toBe(404);
    expect(headers["content-type"]).toMatch(/^application\/problem\+json/);
    expect(body).toEqual({
      type: "urn:vmferry:problem:guest-not-found",
      title: "No such guest",
      status: 404,
      detail: "no nope",
      code: "guest-not-found",
    });
  });
});

describe("migrations", () => {
  const request = { guest: "web1", destination: "host-b" };

  test("are accepted with their defaults and say where they can be watched", async () => {
    const seen: unknown[] = [];
    const api: Api = open({
      steering: {
        start: (asked) => {
          seen.push(asked);
          api.store.create(sampleMigration("m1"));
          return Promise.resolve(api.store.get("m1"));
        },
      },
    });
    const { status, headers, body } = await post(api, "/v1/migrations", request);
    expect(status).toBe(202);
    expect(headers["location"]).toBe("/v1/migrations/m1");
    expect(body).toEqual(JSON.parse(JSON.stringify(sampleMigration("m1"))));
    expect(seen).toEqual([
      {
        ...request,
        mode: "auto",
        limits: { bandwidthBytesPerSecond: null, downtimeMsMax: 300, totalMsMax: null },
        onStall: "post-copy",
        disk: { tracker: "bitmap", writes: "mirror", handover: "synced" },
        fallback: "none",
        allowUnsafe: [],
      },
    ]);
  });

  test("a mode that this version does not have is refused with what it has", async () => {
    const detail = "This version has pre-copy; leave mode out, or set it to auto or pre-copy.";
    const start = (): Promise<never> =>
      Promise.reject(new ProblemError(detail, { code: "not-available" }));
    const api = open({ steering: { start } });
    const answer = await post(api, "/v1/migrations", { ...request, mode: "post-copy" });
    expect(answer).toMatchObject({ status: 422, body: { code: "not-available", detail } });
  });

  test("are listed a page at a time", async () => {
    const api = open();
    for (const id of ["m1", "m2", "m3"]) api.store.create(sampleMigration(id));
    const first = await get(api, "/v1/migrations?limit=2");
    expect(first.body).toMatchObject({ migrations: [{ id: "m3" }, { id: "m2" }] });
    const cursor = String(first.body["nextCursor"]);
    const second = await get(api, `/v1/migrations?limit=2&cursor=${cursor}`);
    expect(second.body).toMatchObject({ migrations: [{ id: "m1" }], nextCursor: null });
    expect((await get(api, "/v1/migrations")).body["migrations"]).toHaveLength(3);
  });

  test("can be waited for", async () => {
    const api = open();
    api.store.create(sampleMigration("m1"));
    const soon = await get(api, "/v1/migrations/m1/wait?timeoutMs=0");
    expect(soon).toMatchObject({ status: 200, body: { phase: "preparing" } });
    const waiting = get(api, "/v1/migrations/m1/wait");
    const error = { code: "peer-lost", detail: "gone" } as const;
    api.store.finish("m1", { phase: "failed", error });
    expect(await waiting).toMatchObject({ status: 200, body: { phase: "failed", error } });
  });

  test("are not waited for on behalf of a client that has gone", async () => {
    const waiting = Promise.withResolvers<AbortSignal | undefined>();
    const wait = (
      id: string,
      _timeoutMs: number,
      signal?: AbortSignal,
    ): Promise<MigrationObject> => {
      waiting.resolve(signal);
      return new Promise((resolve) => {
        signal?.addEventListener("abort", () => {
          resolve(sampleMigration(id));
        });
      });
    };
    const { app } = open({ steering: { wait } });
    await app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = app.server.address() as AddressInfo;
    const client = connect(port, "127.0.0.1");
    client.write("GET /v1/migrations/m1/wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const signal = await waiting.promise;
    expect(signal?.aborted).toBe(false);
    client.destroy();
    await vi.waitFor(() => {
      expect(signal?.aborted).toBe(true);
    });
  });

  test("are steered by PATCH and DELETE", async () => {
    const seen: unknown[] = [];
    const answer = (...call: unknown[]): Promise<ReturnType<typeof sampleMigration>> => {
      seen.push(call);
      return Promise.resolve(sampleMigration("m1"));
    };
    const api = open({ steering: { cancel: answer, setLimits: answer } });
    const payload = { limits: { downtimeMsMax: 500 } };
    const patched = await send(api, { method: "PATCH", url: "/v1/migrations/m1", payload });
    expect(patched).toMatchObject({ status: 200, body: { id: "m1" } });
    const cancelled = await send(api, { method: "DELETE", url: "/v1/migrations/m1" });
    expect(cancelled).toMatchObject({ status: 202, body: { id: "m1" } });
    expect(seen).toEqual([["m1", { downtimeMsMax: 500 }], ["m1"]]);
  });

  test("a DELETE with a content type and no body is a DELETE", async () => {
    const api = open({ steering: { cancel: (id) => Promise.resolve(sampleMigration(id)) } });
    const headers = { "content-type": "application/json" };
    const answer = await send(api, { method: "DELETE", url: "/v1/migrations/m1", headers });
    expect(answer.status).toBe(202);
  });

  test("cannot be cancelled once ownership has gone", async () => {
    const problem = new ProblemError("host-b owns web1.", { code: "past-hand-over" });
    const api = open({ steering: { cancel: () => Promise.reject(problem) } });
    const answer = await send(api, { method: "DELETE", url: "/v1/migrations/m1" });
    expect(answer).toMatchObject({ status: 409, body: { code: "past-hand-over" } });
  });

  test.each([
    { method: "POST", url: "/v1/migrations", payload: request },
    { method: "PATCH", url: "/v1/migrations/m1", payload: { limits: { totalMsMax: 1 } } },
    { method: "DELETE", url: "/v1/migrations/m1" },
  ] as const)("a dest agent sends $method to the source agent", async (options) => {
    const { status, body } = await send(open({ role: "dest" }), options);
    expect(status).toBe(409);
    expect(body).toMatchObject({ code: "not-on-this-agent" });
    expect(body["detail"]).toContain("source agent");
  });

  test.each(["", "/wait", "/events"])("that do not exist have no %s", async (suffix) => {
    const answer = await get(open(), `/v1/migrations/nope${suffix}`);
    expect(answer).toMatchObject({ status: 404, body: { code: "migration-not-found" } });
  });
});

describe("health", () => {
  test("a process that answers lives", async () => {
    expect(await get(open(), "/healthz")).toMatchObject({ status: 200, body: { status: "ok" } });
  });

  test("an agent is ready when nothing speaks against it", async () => {
    expect(await get(open(), "/readyz")).toMatchObject({
      status: 200,
      body: { status: "ready", reasons: [] },
    });
    const reasons = [{ code: "qemu-missing", detail: "qemu-system-x86_64 is not there" }];
    expect(await get(open({ readiness: () => Promise.resolve(reasons) }), "/readyz")).toMatchObject(
      {
        status: 503,
        body: { status: "not-ready", reasons },
      },
    );
  });
});

describe("metrics", () => {
  test("are Prometheus' text, of what the events have told", async () => {
    const { app, store } = open();
    store.create(sampleMigration("m1"));
    const answer = await app.inject("/metrics");
    expect(answer.statusCode).toBe(200);
    expect(answer.headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(answer.body).toContain('vmferry_migrations_active{phase="preparing",role="source"} 1\n');
  });
});

describe("failures", () => {
  const failing = (thrown: unknown): Api => {
    const list = (): never => {
      throw thrown;
    };
    const start = (): Promise<never> => Promise.resolve().then(list);
    return open({ guests: { list, get: list, start, attach: start, powerOff: start } });
  };

  test("an expected one is told by its code, and is no business of the log", async () => {
    const api = failing(new AgentError("web1 is migrating", { code: "guest-busy" }));
    const answer = await get(api, "/v1/guests");
    expect(answer).toMatchObject({ status: 409, body: { code: "guest-busy" } });
    expect(answer.body["detail"]).toBe("web1 is migrating");
    expect(api.logLines.filter((line) => line.includes('"error"'))).toEqual([]);
  });

  test("the fields of an expected one are told", async () => {
    const errors = [{ field: "boot.kernel", detail: "is not in the image directory" }];
    const api = failing(new ProblemError("No kernel.", { code: "invalid-request", errors }));
    const answer = await post(api, "/v1/guests", SAMPLE_DEFINITION);
    expect(answer).toMatchObject({ status: 400, body: { code: "invalid-request", errors } });
  });

  test.each([
    ["an Error", new Error("canary at /home/x.ts:1")],
    [
      "an error with a code that callers do not know",
      new AgentError("canary", { code: "qmp-eof" }),
    ],
    ["an error that names a status", Object.assign(new Error("canary"), { statusCode: 403 })],
    ["no error at all", "canary"],
  ])("%s is internal: logged once, and not shown", async (_, thrown) => {
    const api = failing(thrown);
    const answer = await get(api, "/v1/guests");
    expect(answer).toMatchObject({ status: 500, body: { code: "internal" } });
    expect(JSON.stringify(answer.body)).not.toContain("canary");
    const lines = api.logLines.filter((line) => line.includes("canary"));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('"level":"error"');
  });
});

describe("routes", () => {
  test.each(["/", "/v1", "/v2/guests", "/v1/guests/a/b", "/healthz/x"])(
    "%s is not there, as a problem",
    async (url) => {
      const answer = await get(open(), url);
      expect(answer).toMatchObject({ status: 404, body: { code: "not-found" } });
    },
  );

  test.each([
    ["PUT", "/v1/guests", "GET, HEAD, POST"],
    ["DELETE", "/v1/guests", "GET, HEAD, POST"],
    ["POST", "/v1/guests/web1", "GET, HEAD, DELETE"],
    ["POST", "/v1/migrations/m1", "GET, HEAD, PATCH, DELETE"],
    ["DELETE", "/healthz", "GET, HEAD"],
    ["HEAD", "/v1/events", "GET"],
    ["OPTIONS", "/v1/migrations", "GET, HEAD, POST"],
  ] as const)("%s %s is not offered, and Allow says what is", async (method, url, allow) => {
    const { app } = open();
    const payload = method === "HEAD" ? {} : { payload: "not json" };
    const headers = { "content-type": "application/json" };
    const answer = await app.inject({ method, url, headers, ...payload });
    expect(answer.statusCode).toBe(405);
    const offered = String(answer.headers["allow"]).split(", ").sort();
    expect(offered).toEqual(allow.split(", ").sort());
  });

  test("a URL that is none is a problem", async () => {
    const answer = await get(open(), "/v1/guests/%zz");
    expect(answer).toMatchObject({ status: 400, body: { code: "invalid-request" } });
    expect(answer.headers["content-type"]).toMatch(/^application\/problem\+json/);
  });

  test("answers are not cached, and are what their type says", async () => {
    const { headers } = await get(open(), "/v1/guests");
    expect(headers).toMatchObject({
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      "content-type": "application/json; charset=utf-8",
    });
  });

  test("requests are logged at debug, by route and without their query", async () => {
    const api = open();
    await get(api, "/v1/migrations?limit=7");
    const line = api.logLines.find((text) => text.includes("/v1/migrations"));
    expect(line).toContain('"level":"debug"');
    expect(line).not.toContain("limit=7");
  });
});

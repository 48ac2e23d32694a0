import { afterEach, beforeEach, expect, test } from "vitest";
import type { MigrationRequest } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";
import { createApi, sampleMigration, type Api } from "./api-fixture.ts";

const BODY = { guest: "web1", destination: "host-b" };
let api: Api;
let started: MigrationRequest[];
let traceParents: (string | null)[];
let refusal: ProblemError | null;

beforeEach(() => {
  started = [];
  traceParents = [];
  refusal = null;
  api = createApi({
    steering: {
      start: (request, traceParent) => {
        if (refusal !== null) return Promise.reject(refusal);
        started.push(request);
        traceParents.push(traceParent);
        const id = `m${started.length}`;
        api.store.create(sampleMigration(id));
        return Promise.resolve(api.store.get(id));
      },
    },
  });
});

afterEach(async () => {
  await api.app.close();
});

interface Answer {
  readonly status: number;
  readonly location: unknown;
  readonly body: Record<string, unknown>;
}

async function start(key: string | undefined, payload: object = BODY): Promise<Answer> {
  return post(key === undefined ? {} : { "idempotency-key": key }, payload);
}

async function post(headers: Record<string, string>, payload: object = BODY): Promise<Answer> {
  const url = "/v1/migrations";
  const answer = await api.app.inject({ method: "POST", url, headers, payload });
  const { statusCode: status } = answer;
  return { status, location: answer.headers["location"], body: answer.json() };
}

test("without a key, every request begins a migration", async () => {
  expect((await start(undefined)).body).toMatchObject({ id: "m1" });
  expect((await start(undefined)).body).toMatchObject({ id: "m2" });
});

test("the same key and body are answered with the same migration, as it is by then", async () => {
  const first = await start("a-key");
  expect(first).toMatchObject({ status: 202, location: "/v1/migrations/m1", body: { id: "m1" } });
  api.store.phase("m1", "pre-copy");
  // What is left out has its default, so this says the same.
  const second = await start("a-key", { mode: "auto", ...BODY });
  expect(second).toMatchObject({ ...first, body: { id: "m1", phase: "pre-copy" } });
  expect(started).toHaveLength(1);
});

test("requests with one key that come at once begin one migration", async () => {
  const answers = await Promise.all([start("a-key"), start("a-key"), start("a-key")]);
  expect(answers.map(({ location }) => location)).toEqual(Array(3).fill("/v1/migrations/m1"));
  expect(started).toHaveLength(1);
});

test("the same key with another body is a conflict, and begins nothing", async () => {
  await start("a-key");
  const { status, body } = await start("a-key", { ...BODY, guest: "web2" });
  expect(status).toBe(409);
  expect(body).toMatchObject({
    code: "idempotency-conflict",
    errors: [{ field: "idempotency-key" }],
  });
  expect(started).toHaveLength(1);
});

test("a refused request is no use of its key", async () => {
  refusal = new ProblemError("web1 is paused.", { code: "guest-not-running" });
  expect((await start("a-key")).body).toMatchObject({ code: "guest-not-running" });
  refusal = null;
  expect((await start("a-key")).status).toBe(202);
});

test.each(["", "a key", "k".repeat(256), "käse", "a\tb"])(
  "%j is no key: the header is named, and nothing begins",
  async (key) => {
    const { status, body } = await start(key);
    expect(status).toBe(400);
    expect(body).toMatchObject({
      code: "invalid-request",
      errors: [{ field: "idempotency-key" }],
    });
    expect(started).toEqual([]);
  },
);

test.each(['"8e03978e-40d5-43dd-bc93-6894a57f9324"', "k".repeat(255), "a,b"])(
  "%j is a key",
  async (key) => {
    expect((await start(key)).status).toBe(202);
  },
);

test("a key is not looked at where the body is wrong", async () => {
  expect((await start("a-key", { guest: "web1" })).status).toBe(400);
  expect((await start("a-key")).status).toBe(202);
});

test("a traceparent is passed on; one that is not valid is as good as none", async () => {
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  for (const value of [traceparent, "nonsense", `${traceparent}, ${traceparent}`, ""]) {
    expect((await post({ traceparent: value })).status).toBe(202);
  }
  await post({});
  expect(traceParents).toEqual([traceparent, null, null, null, null]);
});

test("a preflight has the body of a start, and its checks are the answer", async () => {
  const checks = [{ name: "memory", status: "fail", detail: "too little", hint: null }] as const;
  const asked: MigrationRequest[] = [];
  const checking = createApi({
    steering: {
      preflight: (request) => {
        asked.push(request);
        return Promise.resolve({ checks });
      },
    },
  });
  const url = "/v1/migrations/preflight";
  const answer = await checking.app.inject({ method: "POST", url, payload: BODY });
  expect(answer.statusCode).toBe(200);
  expect(answer.json()).toEqual({ checks });
  expect(asked).toMatchObject([{ ...BODY, mode: "auto", allowUnsafe: [] }]);
  const wrong = { ...BODY, allowUnsafe: ["images"] };
  const refused = await checking.app.inject({ method: "POST", url, payload: wrong });
  expect(refused.json()).toMatchObject({
    code: "invalid-request",
    errors: [{ field: "allowUnsafe.0" }],
  });
  await checking.app.close();
});

test("a preflight is asked for at the source", async () => {
  const dest = createApi({ role: "dest" });
  const url = "/v1/migrations/preflight";
  const answer = await dest.app.inject({ method: "POST", url, payload: BODY });
  expect(answer.json()).toMatchObject({ code: "not-on-this-agent", status: 409 });
  await dest.app.close();
});

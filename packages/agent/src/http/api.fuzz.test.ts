/**
 * Requests made from the API's own document, some as it says, some spoilt, against the real server.
 * SEED= replays a run.
 */
import { Agent, request, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { PROBLEM_CONTENT_TYPE, problemCodes, type Problem } from "@vmferry/protocol";
import fc from "fast-check";
import Schema from "typebox/schema";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ProblemError } from "../problem-error.ts";
import { createApi, SAMPLE_DEFINITION, sampleMigration, type Api } from "./api-fixture.ts";
import { spoilt, valuesOf, type Definitions, type JsonSchema } from "./schema-arbitrary.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const RUNS = 60;

interface Parameter {
  readonly in: "path" | "query" | "header";
  readonly name: string;
  readonly schema: JsonSchema;
}

interface Operation {
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: Record<string, { readonly schema: JsonSchema }> };
  readonly responses: Record<string, { readonly content?: Record<string, { schema?: object }> }>;
}

interface Document {
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly schemas: Definitions };
}

interface Call {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  /** As the document has it, in every part. */
  readonly isValid: boolean;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

let api: Api;
let port: number;
let document: Document;
const agent = new Agent({ keepAlive: true });
/** Parameters whose meaning is more than their schema says: values that the agent knows. */
const KNOWN = new Map(Object.entries({ id: ["m1"], name: ["web1"], cursor: ["MS4x"] }));

beforeAll(async () => {
  const get = (id: string): Promise<ReturnType<typeof sampleMigration>> =>
    Promise.resolve().then(() => api.store.get(id));
  let count = 0;
  api = createApi({
    steering: {
      start: ({ guest }) => {
        if (/^[a-m]/i.test(guest)) {
          throw new ProblemError(`No guest ${guest}.`, { code: "guest-not-found" });
        }
        api.store.create(sampleMigration(`started-${++count}`));
        return get(`started-${count}`);
      },
      preflight: ({ guest: name }) => {
        const detail = `${name} is fine`;
        return Promise.resolve({ checks: [{ name, status: "pass", detail, hint: null }] });
      },
      cancel: get,
      postcopy: get,
      setLimits: get,
      resolve: get,
    },
  });
  api.store.create(sampleMigration("m1"));
  const error = { code: "peer-lost", detail: "gone" } as const;
  api.store.finish("m1", { phase: "failed", error });
  await api.app.inject({ method: "POST", url: "/v1/guests", payload: SAMPLE_DEFINITION });
  await api.app.listen({ host: "127.0.0.1", port: 0 });
  ({ port } = api.app.server.address() as AddressInfo);
  document = (await api.app.inject("/openapi.json")).json<Document>();
});

afterAll(async () => {
  agent.destroy();
  await api.app.close();
});

async function send(method: string, { path, headers, body }: Call): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const asked = request({ host: "127.0.0.1", port, agent, method, path, headers }, resolve);
  asked.on("error", reject).end(body);
  const response = await promise;
  const [status, type] = [response.statusCode!, response.headers["content-type"] ?? ""];
  if (type === "text/event-stream" || type === "application/x-ndjson") {
    // It does not end.
    response.destroy();
    return { status, type, body: "" };
  }
  return { status, type, body: await text(response) };
}

/** Text with nothing that the client of this test would itself refuse to send. */
const anyText = fc.string({ unit: "grapheme", minLength: 1, maxLength: 120 });
const anyHeader = fc.string({ maxLength: 300 }).map((value) => value.trim());

interface Part {
  readonly text: string;
  readonly isValid: boolean;
}

const good = (values: fc.Arbitrary<unknown>): fc.Arbitrary<Part> =>
  values.map((value) => ({ text: String(value), isValid: true }));
const bad = (values: fc.Arbitrary<string>): fc.Arbitrary<Part> =>
  values.map((value) => ({ text: value, isValid: false }));

/** A value for each parameter of that kind, or undefined; all of a path. */
function parts(operation: Operation, kind: Parameter["in"]): fc.Arbitrary<Record<string, Part>> {
  const named = (operation.parameters ?? []).filter((each) => each.in === kind);
  const arbitraries = named.map(({ name, schema }) => {
    const values = KNOWN.get(name);
    const known = values === undefined ? valuesOf(schema, {}) : fc.constantFrom(...values);
    const wrong = kind === "header" ? anyHeader : anyText;
    return [name, fc.oneof({ weight: 3, arbitrary: good(known) }, bad(wrong))] as const;
  });
  const requiredKeys = kind === "path" ? named.map(({ name }) => name) : [];
  return fc.record(Object.fromEntries(arbitraries), { requiredKeys });
}

function calls(template: string, operation: Operation): fc.Arbitrary<Call> {
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const definitions = document.components.schemas;
  const values = schema === undefined ? null : valuesOf(schema, definitions);
  const toJson = (value: unknown): string => JSON.stringify(value);
  const body: fc.Arbitrary<Part | undefined> =
    values === null
      ? fc.constant(undefined)
      : fc.oneof(
          good(values.map(toJson)),
          bad(spoilt(values).map(toJson)),
          bad(spoilt(spoilt(values)).map(toJson)),
        );
  const unknownQuery = fc.oneof(
    { weight: 9, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.tuple(anyText, anyText) },
  );
  return fc
    .record({
      path: parts(operation, "path"),
      query: parts(operation, "query"),
      header: parts(operation, "header"),
      body,
      unknownQuery,
    })
    .map((made) => {
      const query = Object.entries(made.query).map(([name, { text: value }]) => [name, value]);
      if (made.unknownQuery !== undefined) query.push([...made.unknownQuery]);
      const search = new URLSearchParams(query as [string, string][]).toString();
      const path = template.replace(/\{(\w+)\}/g, (_, name: string) =>
        encodeURIComponent(made.path[name]!.text),
      );
      const headers = Object.entries(made.header).map(([name, { text: value }]) => [name, value]);
      if (made.body !== undefined) headers.push(["content-type", "application/json"]);
      const all = [made.path, made.query, made.header].flatMap((each) => Object.values(each));
      const isValid = [...all, made.body].every((part) => part?.isValid !== false);
      return {
        path: search === "" ? path : `${path}?${search}`,
        headers: Object.fromEntries(headers) as Record<string, string>,
        body: made.body?.text,
        isValid: isValid && made.unknownQuery === undefined,
      };
    });
}

function expectProblem({ status, type, body }: Answer, call: Call): void {
  expect(type.split(";")[0]).toBe(PROBLEM_CONTENT_TYPE);
  const problem = JSON.parse(body) as Problem;
  const kind = problemCodes[problem.code];
  expect(problem).toMatchObject({
    status,
    title: kind.title,
    type: `urn:vmferry:problem:${problem.code}`,
  });
  expect(kind.status).toBe(status);
  expect(problem.detail).toMatch(/\w/);
  if (status !== 400) return;
  expect(call.isValid, problem.detail).toBe(false);
  // What is no JSON, or reaches for a prototype, has no fields.
  if (problem.errors === undefined)
    expect(problem.detail).toMatch(/^Body |^Invalid JSON|prototype/i);
  else expect(problem.errors.length).toBeGreaterThan(0);
  for (const { field, detail } of problem.errors ?? []) {
    expect(typeof field).toBe("string");
    expect(detail).toMatch(/\w/);
  }
}

/** The answer is one that the document has, and its content is what the document says. */
function expectDocumented({ status, type, body }: Answer, { responses }: Operation): void {
  const described = responses[status] ?? responses["default"];
  expect(described, `${status}`).toBeDefined();
  const content = described?.content?.[type.split(";")[0]!];
  if (status === 204) expect(body).toBe("");
  else expect(content, type).toBeDefined();
  if (!/json$/.test(type.split(";")[0]!)) return;
  const validator = Schema.Compile({ ...content!.schema, components: document.components });
  const [isRight, errors] = validator.Errors(JSON.parse(body));
  expect(errors).toEqual([]);
  expect(isRight).toBe(true);
}

const ROUTES = [
  ["get", "/healthz"],
  ["get", "/readyz"],
  ["get", "/metrics"],
  ["get", "/openapi.json"],
  ["get", "/v1/guests"],
  ["post", "/v1/guests"],
  ["get", "/v1/guests/{name}"],
  ["delete", "/v1/guests/{name}"],
  ["get", "/v1/migrations"],
  ["post", "/v1/migrations"],
  ["get", "/v1/migrations/{id}"],
  ["patch", "/v1/migrations/{id}"],
  ["delete", "/v1/migrations/{id}"],
  ["post", "/v1/migrations/{id}/post-copy"],
  ["post", "/v1/migrations/preflight"],
  ["post", "/v1/migrations/{id}/resolve"],
  ["get", "/v1/migrations/{id}/wait"],
  ["get", "/v1/migrations/{id}/map"],
  ["get", "/v1/migrations/{id}/events"],
  ["get", "/v1/events"],
] as const;

describe(`whatever is sent (SEED=${seed})`, () => {
  test("every route of the document is tried", () => {
    const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
    expect(routes.sort()).toEqual(ROUTES.map((route) => route.join(" ")).sort());
  });

  test.each(ROUTES)(
    "%s %s answers as the document has it, and never fails",
    async (method, path) => {
      const operation = document.paths[path]![method]!;
      const seen = new Set<number>();
      const property = fc.asyncProperty(calls(path, operation), async (call) => {
        const answer = await send(method.toUpperCase(), call);
        seen.add(answer.status);
        expect(answer.status).toBeLessThan(500);
        if (answer.status >= 400) expectProblem(answer, call);
        expectDocumented(answer, operation);
      });
      await fc.assert(property, { seed, numRuns: RUNS });
      if (operation.requestBody !== undefined) expect([...seen]).toContain(400);
      expect(Math.min(...seen)).toBeLessThan(300);
    },
  );
});

import { existsSync } from "node:fs";
import { Validator } from "@seriousme/openapi-schema-validator";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createApi, type Api } from "./api-fixture.ts";

const COPY = new URL("../../../../docs/openapi.json", import.meta.url);
const RENEW = `
docs/openapi.json is not what the agent says of itself. If the change of the API is meant, write it anew:
  npx vitest run --project unit packages/agent/src/http/openapi.test.ts -u
`;

interface Operation {
  readonly operationId: string;
  readonly security?: readonly unknown[];
  readonly responses: Readonly<Record<string, { readonly content?: object }>>;
}

interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

let api: Api;
let document: Document;

beforeEach(async () => {
  api = createApi();
  document = (await api.app.inject("/openapi.json")).json<Document>();
});

afterEach(async () => {
  await api.app.close();
});

const operations = (): readonly Operation[] =>
  Object.values(document.paths).flatMap((methods) => Object.values(methods));

test("the document is that of docs/openapi.json", async () => {
  const text = `${JSON.stringify(document, null, 2)}\n`;
  // A missing one would be made, and found equal.
  expect(existsSync(COPY), RENEW).toBe(true);
  await expect(text, RENEW).toMatchFileSnapshot(COPY.pathname);
});

test("it is OpenAPI 3.1, by the schema of that", async () => {
  const validator = new Validator();
  const { valid, errors } = await validator.validate({ ...document });
  expect(errors).toBeUndefined();
  expect(valid).toBe(true);
  expect(validator.version).toBe("3.1");
  const paths = { ...document.paths, "/x": { get: { responses: { 200: {} } } } };
  expect((await new Validator().validate({ ...document, paths })).valid).toBe(false);
});

test("every reference leads somewhere", () => {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)];
  expect(references.length).toBeGreaterThan(20);
  for (const [, path = ""] of references) {
    const found = path
      .split("/")
      .reduce((value: unknown, key) => (value as Record<string, unknown>)[key], document);
    expect(found, path).toMatchObject({ type: "object" });
  }
});

test("every route of the API is in it, and nothing else", () => {
  const routes = Object.entries(document.paths).map(
    ([path, methods]) => `${path} ${Object.keys(methods).sort().join(" ")}`,
  );
  expect(routes.sort()).toEqual([
    "/healthz get",
    "/metrics get",
    "/openapi.json get",
    "/readyz get",
    "/v1/events get",
    "/v1/guests get post",
    "/v1/guests/{name} delete get",
    "/v1/migrations get post",
    "/v1/migrations/preflight post",
    "/v1/migrations/{id} delete get patch",
    "/v1/migrations/{id}/events get",
    "/v1/migrations/{id}/map get",
    "/v1/migrations/{id}/post-copy post",
    "/v1/migrations/{id}/resolve post",
    "/v1/migrations/{id}/wait get",
  ]);
});

test("operations have different names", () => {
  const ids = operations().map(({ operationId }) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids).not.toContain(undefined);
});

test("the token is asked for by every route but the probes, and errors are problems", () => {
  for (const operation of operations()) {
    if (operation.security?.length === 0) continue;
    expect(Object.keys(operation.responses)).toEqual(expect.arrayContaining(["401", "default"]));
    for (const [status, { content }] of Object.entries(operation.responses)) {
      if (status.startsWith("2")) continue;
      expect(Object.keys(content ?? {})).toEqual(["application/problem+json"]);
    }
  }
  const open = operations().filter(({ security }) => security?.length === 0);
  expect(open.map(({ operationId }) => operationId)).toEqual(["getHealth", "getReadiness"]);
});

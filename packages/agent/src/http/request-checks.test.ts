/**
 * What never reaches a handler: bodies of another type or shape, too much of anything, and requests
 * without the token. In process where a header has to arrive exactly as written, over a socket
 * where Node's own parser is part of the answer.
 */
import { connect, type AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import {
  createApi,
  sampleMigration,
  SAMPLE_DEFINITION,
  type Api,
  type ApiOptions,
} from "./api-fixture.ts";

const JSON_TYPE = { "content-type": "application/json" };
const opened: Api[] = [];

function open(options: ApiOptions = {}): Api {
  const api = createApi(options);
  opened.push(api);
  return api;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

interface Refusal {
  readonly status: number;
  readonly code: unknown;
  readonly errors: readonly { readonly field: string; readonly detail: string }[];
}

async function postGuest(
  { app }: Api,
  payload: string,
  headers: Record<string, string> = JSON_TYPE,
): Promise<Refusal> {
  const answer = await app.inject({ method: "POST", url: "/v1/guests", payload, headers });
  const { code, errors } = answer.json<Omit<Refusal, "status">>();
  return { status: answer.statusCode, code, errors };
}

/** Sends bytes as they are and reads until the agent closes the connection. */
async function exchange({ app }: Api, bytes: string): Promise<string> {
  await app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = app.server.address() as AddressInfo;
  const socket = connect(port, "127.0.0.1");
  socket.write(bytes);
  return text(socket);
}

describe("a body", () => {
  test.each([
    ["an unknown property", { ...SAMPLE_DEFINITION, extra: 1 }, "extra", "is not known"],
    [
      "an unknown property inside",
      { ...SAMPLE_DEFINITION, boot: { kernel: "k", x: 1 } },
      "boot.x",
      "is not known",
    ],
    ["a number as text", { ...SAMPLE_DEFINITION, vcpus: "2" }, "vcpus", "must be integer"],
    ["a text as number", { ...SAMPLE_DEFINITION, cpu: 1 }, "cpu", "must be string"],
    ["a value in a list", { ...SAMPLE_DEFINITION, vcpus: [2] }, "vcpus", "must be integer"],
    ["an object for a list", { ...SAMPLE_DEFINITION, disks: {} }, "disks", "must be array"],
    [
      "an unknown word",
      { ...SAMPLE_DEFINITION, accel: "xen" },
      "accel",
      'must be one of ["auto","kvm","tcg"]',
    ],
    [
      "a disk without an image",
      { ...SAMPLE_DEFINITION, disks: [{ id: "disk0" }] },
      "disks.0.image",
      "is missing",
    ],
  ])("with %s is refused and the field is named", async (_, definition, field, detail) => {
    const api = open();
    const refusal = await postGuest(api, JSON.stringify(definition));
    expect(refusal).toEqual({ status: 400, code: "invalid-request", errors: [{ field, detail }] });
    expect(api.calls).toEqual([]);
  });

  test("with several mistakes is answered with all of them, but not with thousands", async () => {
    const two = { ...SAMPLE_DEFINITION, vcpus: 0, memoryBytes: 1 };
    const fields = (await postGuest(open(), JSON.stringify(two))).errors.map(({ field }) => field);
    expect([...new Set(fields)].sort()).toEqual(["memoryBytes", "vcpus"]);
    const many = Object.fromEntries(Array.from({ length: 5000 }, (_, n) => [`x${n}`, 0]));
    expect((await postGuest(open(), JSON.stringify(many))).errors).toHaveLength(20);
  });

  test.each(["", "{", "null", "[]", '"x"', "1", '{"name":"a",}', "{'name':'a'}", "\ufeff{"])(
    "of %j is refused",
    async (payload) => {
      const api = open();
      expect(await postGuest(api, payload)).toMatchObject({ status: 400, code: "invalid-request" });
      expect(api.calls).toEqual([]);
    },
  );

  test.each([
    '{"__proto__":{"x":1}}',
    '{"constructor":{"prototype":{"x":1}}}',
    '{"boot":{"__proto__":{"kernel":"k"}}}',
    '{"\\u005f_proto__":{"x":1}}',
  ])("of %s pollutes nothing", async (payload) => {
    // Without fields: the parser has refused it, before anything could look at a property.
    expect(await postGuest(open(), payload)).toMatchObject({ status: 400, errors: undefined });
    expect(Object.hasOwn(Object.prototype, "x")).toBe(false);
  });

  test("that is nested 10 000 deep is refused", async () => {
    const payload = `{"boot":${"[".repeat(10_000)}${"]".repeat(10_000)}}`;
    expect(await postGuest(open(), payload)).toMatchObject({
      status: 400,
      code: "invalid-request",
    });
  });

  test.each([
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/json\ta",
    "application/json\t",
    " application/json",
    "application/json ;x",
    "application/json; charset=utf-16",
    "application/json, text/plain",
    "application/problem+json",
    "",
  ])("of the type %j never comes as far as the parser", async (type) => {
    const api = open();
    const refusal = await postGuest(api, JSON.stringify({ evil: 1 }), { "content-type": type });
    expect(refusal).toMatchObject({ status: 415, code: "unsupported-media-type" });
    expect(api.calls).toEqual([]);
  });

  test("in chunks has to be of the right type as well", async () => {
    const api = open();
    const head = "POST /v1/guests HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    const type = "Content-Type: application/json; charset=utf-16";
    const chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    expect(await exchange(api, `${head}${type}\r\n${chunked}`)).toMatch(/^HTTP\/1\.1 415 /);
  });

  test("without a type is refused", async () => {
    const api = open();
    const body = JSON.stringify(SAMPLE_DEFINITION);
    const head = `POST /v1/guests HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n`;
    const answer = await exchange(api, `${head}Content-Length: ${body.length}\r\n\r\n${body}`);
    expect(answer).toMatch(/^HTTP\/1\.1 415 /);
    expect(api.calls).toEqual([]);
  });

  test.each(["application/json", "APPLICATION/JSON", "application/json; charset=UTF-8"])(
    "of the type %s is validated like any other",
    async (type) => {
      const headers = { "content-type": type };
      const good = open();
      expect(await postGuest(good, JSON.stringify(SAMPLE_DEFINITION), headers)).toMatchObject({
        status: 201,
      });
      const bad = open();
      expect(await postGuest(bad, '{"evil":1}', headers)).toMatchObject({ status: 400 });
      expect(bad.calls).toEqual([]);
    },
  );

  test.each(["\tapplication/json", " application/json", "application/json\t", "application/json "])(
    "whose type came over the wire as %j is validated, blanks there being no part of it",
    async (type) => {
      const api = open();
      const head = `POST /v1/guests HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n`;
      const answer = await exchange(
        api,
        `${head}Content-Type:${type}\r\nContent-Length: 10\r\n\r\n{"evil":1}`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer).toContain("evil");
      expect(api.calls).toEqual([]);
    },
  );

  test("of 64 KiB is read, and one byte more is not", async () => {
    const padded = (bytes: number): string => {
      const body = JSON.stringify(SAMPLE_DEFINITION);
      return body + " ".repeat(bytes - body.length);
    };
    expect(await postGuest(open(), padded(65_536))).toMatchObject({ status: 201 });
    const api = open();
    expect(await postGuest(api, padded(65_537))).toMatchObject({
      status: 413,
      code: "payload-too-large",
    });
    expect(api.calls).toEqual([]);
  });

  test("of a megabyte in chunks is cut off, with a problem", async () => {
    const api = open();
    const chunk = `10000\r\n${" ".repeat(65_536)}\r\n`;
    const head = "POST /v1/guests HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    const request = `${head}Content-Type: application/json\r\n\r\n${chunk.repeat(16)}0\r\n\r\n`;
    const answer = await exchange(api, request).catch(() => "reset");
    // The connection is closed on a sender that goes on sending: it may see that first.
    if (answer !== "reset") expect(answer).toMatch(/^HTTP\/1\.1 413 [^]*payload-too-large/);
    expect(api.calls).toEqual([]);
  });
});

describe("a query", () => {
  test.each([
    ["limit=0", "limit"],
    ["limit=1001", "limit"],
    ["limit=", "limit"],
    ["limit=1e2", "limit"],
    ["limit=%201", "limit"],
    ["limit=-1", "limit"],
    ["limit=1.5", "limit"],
    ["limit=true", "limit"],
    ["limit=1&limit=2", "limit"],
    ["limit=99999999999999999999", "limit"],
    ["x=1", "x"],
    ["cursor=%00", "cursor"],
  ])("of %s is refused and the field is named", async (query, field) => {
    const { app } = open();
    const answer = await app.inject(`/v1/migrations?${query}`);
    expect(answer.statusCode).toBe(400);
    expect(answer.json()).toMatchObject({ code: "invalid-request", errors: [{ field }] });
  });
});

describe("the token", () => {
  const token = "0123456789abcdef";

  test.each([
    "GET /v1/guests",
    "POST /v1/guests",
    "GET /v1/events",
    "GET /metrics",
    "GET /openapi.json",
    "GET /nope",
    "PUT /v1/guests",
  ])("is asked for by %s", async (line) => {
    const [method = "", url = ""] = line.split(" ");
    const { app, calls } = open({ apiToken: token });
    const answer = await app.inject({
      method: method as "GET",
      url,
      ...(method === "POST" ? { payload: SAMPLE_DEFINITION } : {}),
    });
    expect(answer.statusCode).toBe(401);
    expect(answer.headers["www-authenticate"]).toBe('Bearer realm="vmferry"');
    expect(answer.json()).toMatchObject({ code: "unauthorized" });
    expect(calls).toEqual([]);
  });

  test.each([
    token,
    "Bearer",
    "Bearer ",
    `Bearer ${token}0`,
    `Bearer ${token.slice(1)}`,
    `Bearer ${token.toUpperCase()}`,
    `Bearer ${token} ${token}`,
    `Basic ${token}`,
    `Bearer ${Buffer.from(token).toString("base64")}`,
  ])("is not %j", async (authorization) => {
    const { app } = open({ apiToken: token });
    const answer = await app.inject({ url: "/v1/guests", headers: { authorization } });
    expect(answer.statusCode).toBe(401);
    expect(answer.body).not.toContain(token);
  });

  test.each(["Bearer", "bearer", "BEARER"])("is let in as %s", async (scheme) => {
    const { app } = open({ apiToken: token });
    const headers = { authorization: `${scheme} ${token}` };
    expect((await app.inject({ url: "/v1/guests", headers })).statusCode).toBe(200);
  });

  test.each(["/healthz", "/readyz", "/healthz?verbose"])("is not asked for by %s", async (url) => {
    const { app } = open({ apiToken: token });
    expect((await app.inject(url)).statusCode).toBe(200);
  });

  test.each(["//healthz", "/healthz/../v1/guests", "/healthz%2f..%2fv1/guests", "/HEALTHZ"])(
    "is asked for by %s, which is no probe",
    async (url) => {
      const { app } = open({ apiToken: token });
      expect((await app.inject(url)).statusCode).toBe(401);
    },
  );

  test("is asked for before the body is looked at", async () => {
    const api = open({ apiToken: token });
    expect(await postGuest(api, "{", { "content-type": "text/plain" })).toMatchObject({
      status: 401,
    });
  });

  test("never shows in the log", async () => {
    const { app, logLines } = open({ apiToken: token });
    for (const authorization of [`Bearer ${token}`, `Bearer ${token}x`]) {
      await app.inject({ url: "/v1/guests", headers: { authorization } });
    }
    expect(logLines.join("")).not.toContain(token);
  });
});

describe("the host that a request names", () => {
  test.each([
    "localhost",
    "localhost:7070",
    "127.0.0.1:7070",
    "[::1]:7070",
    "a.localhost",
    "10.0.0.2",
  ])("may be %s", async (host) => {
    const { app } = open();
    expect((await app.inject({ url: "/v1/guests", headers: { host } })).statusCode).toBe(200);
  });

  test.each(["evil.example", "evil.example:7070", "localhost.evil.example", "127.0.0.1.nip.io"])(
    "may not be %s without a token: a page could have pointed that here",
    async (host) => {
      const { app } = open();
      const answer = await app.inject({ url: "/v1/guests", headers: { host } });
      expect(answer.statusCode).toBe(421);
      expect(answer.json()).toMatchObject({ code: "host-not-allowed" });
    },
  );

  test("does not matter to whoever has the token", async () => {
    const { app } = open({ apiToken: "t" });
    const headers = { host: "host-a.example", authorization: "Bearer t" };
    expect((await app.inject({ url: "/v1/guests", headers })).statusCode).toBe(200);
  });
});

describe("bytes that are no request", () => {
  test.each([
    ["no HTTP", "HELLO\r\n\r\n", /^HTTP\/1\.1 400 [^]*invalid-request/],
    [
      "header lines of 20 KiB",
      `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`,
      /^HTTP\/1\.1 431 [^]*headers-too-large/,
    ],
    [
      "two lengths",
      "POST /v1/guests HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
      /^HTTP\/1\.1 400 /,
    ],
  ])("%s are answered with a problem", async (_, bytes, expected) => {
    const answer = await exchange(open(), bytes);
    expect(answer).toMatch(expected);
    expect(answer).toContain("content-type: application/problem+json");
  });

  test("an upgrade to something else than WebSocket is a plain request", async () => {
    const upgrade = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n";
    const request = `GET /healthz HTTP/1.1\r\nHost: localhost\r\n${upgrade}HTTP2-Settings: AAMAAABk\r\n\r\n`;
    expect(await exchange(open(), request)).toMatch(/^HTTP\/1\.1 200 [^]*"ok"/);
  });

  test("Connection: close is honoured, with the whole answer", async () => {
    const request = "GET /v1/guests HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    const answer = await exchange(open(), request);
    expect(answer).toMatch(/^HTTP\/1\.1 200 [^]*Connection: close[^]*\{"guests":\[\]\}$/);
  });
});

describe("a page of another site", () => {
  const cancelled = { steering: { cancel: () => Promise.resolve(sampleMigration("m1")) } };
  const cancel = async (options: ApiOptions, headers: Record<string, string>): Promise<unknown> => {
    const { app } = open({ ...cancelled, ...options });
    const url = "/v1/migrations/m1";
    const answer = await app.inject({ method: "DELETE", url, headers });
    return answer.statusCode === 202 ? "done" : answer.json<{ code: unknown }>().code;
  };
  const host = "127.0.0.1:7070";

  test("cannot act, while the agent's own page and other clients can", async () => {
    const code = "origin-not-allowed";
    expect(await cancel({}, { host, origin: "https://evil.example" })).toBe(code);
    expect(await cancel({}, { host, origin: "http://127.0.0.1:7071" })).toBe(code);
    expect(await cancel({}, { host, origin: "null" })).toBe(code);
    expect(await cancel({}, { host, origin: `http://${host}` })).toBe("done");
    expect(await cancel({}, { host })).toBe("done");
  });

  test("has no token; whoever has one may be behind a proxy of another name", async () => {
    const options = { apiToken: "secret" };
    const origin = "https://agents.example";
    expect(await cancel(options, { host, origin })).toBe("unauthorized");
    expect(await cancel(options, { host, origin, authorization: "Bearer secret" })).toBe("done");
  });
});

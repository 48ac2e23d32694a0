import { afterEach, expect, test } from "vitest";
import { createApi, SAMPLE_DEFINITION, type Api, type ApiOptions } from "./api-fixture.ts";
let api: Api;
function start(options: ApiOptions = {}): Api {
  api = createApi(options);
  return api;
}
afterEach(async () => {
  await api.app.close();
});
test("play", async () => {
  const { app } = start();
  for (const [m, u, b, h] of [
    ["GET", "/healthz"],
    ["GET", "/readyz"],
    ["GET", "/nope"],
    ["PUT", "/v1/guests"],
    ["HEAD", "/v1/guests"],
    ["HEAD", "/v1/events"],
    ["POST", "/v1/guests"],
    ["POST", "/v1/guests", "{}", { "content-type": "application/json" }],
    ["POST", "/v1/guests", "{", { "content-type": "application/json" }],
    ["POST", "/v1/guests", "[]", { "content-type": "text/plain" }],
    ["POST", "/v1/guests", "null", { "content-type": "application/json" }],
    [
      "POST",
      "/v1/guests",
      JSON.stringify(SAMPLE_DEFINITION),
      { "content-type": "application/json" },
    ],
    ["GET", "/v1/guests/%zz"],
    ["GET", "/v1/guests/x"],
    ["GET", "/v1/guests/web1"],
    ["GET", "/v1/guests/" + "x".repeat(200)],
    ["GET", "/v1/migrations?limit=0"],
    ["GET", "/v1/migrations?limit=5&limit=6"],
    ["GET", "/v1/migrations?x=1"],
    ["GET", "/v1/migrations?limit=5&cursor=.."],
    ["DELETE", "/v1/migrations/x", "", { "content-type": "application/json" }],
    [
      "POST",
      "/v1/migrations",
      JSON.stringify({ guest: "a", destination: "b", limits: { downtimeMsMax: "300" }, mode: "x" }),
      { "content-type": "application/json" },
    ],
    ["GET", "/v1/events?after=x"],
  ] as [string, string, string?, object?][]) {
    const r = await app.inject({
      method: m as never,
      url: u,
      ...(b === undefined ? {} : { payload: b }),
      headers: (h ?? {}) as never,
    });
    console.log(m, u, b ?? "", "\n   ", r.statusCode, JSON.stringify(r.headers), r.body);
  }
  console.log(
    api.calls,
    api.logLines.filter((l) => !l.includes("answered")),
  );
});

import { afterEach, describe, expect, it } from "vitest";
import { loadDashboard } from "@vmferry/dashboard";
import type { InjectOptions } from "fastify";
import { createApi, type Api, type ApiOptions } from "./api-fixture.ts";

const opened: Api[] = [];
const dashboard = await loadDashboard("source");

afterEach(async () => {
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly text: string;
}

async function ask(request: InjectOptions, options: ApiOptions = {}): Promise<Answer> {
  const api = createApi({ dashboard, ...options });
  opened.push(api);
  const { statusCode, headers, payload } = await api.app.inject(request);
  return { status: statusCode, headers, text: payload };
}

describe("the page", () => {
  it("is served at / with a policy that allows its own files and nothing else", async () => {
    const { status, headers, text } = await ask({ url: "/" });
    expect(status).toBe(200);
    expect(text).toContain("<title>vmferry · source agent</title>");
    expect(headers).toMatchObject({
      "content-type": "text/html; charset=utf-8",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cache-control": "no-cache",
    });
    const policy = String(headers["content-security-policy"]);
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/unsafe|https?:|\*|data:/);
  });

  it("is served without a token, while everything that it then asks for is refused", async () => {
    const options = { apiToken: "secret" };
    expect(await ask({ url: "/" }, options)).toMatchObject({ status: 200 });
    expect(await ask({ url: "/dashboard/main.ts" }, options)).toMatchObject({ status: 200 });
    for (const url of ["/v1/guests", "/v1/migrations", "/v1/events", "/v1/migrations/x/map"]) {
      expect(await ask({ url }, options)).toMatchObject({ status: 401 });
    }
  });

  it("has modules that a browser takes for JavaScript, without types", async () => {
    const { headers, text } = await ask({ url: "/dashboard/views/chart.ts" });
    expect(headers["content-type"]).toBe("text/javascript; charset=utf-8");
    expect(text).toContain('import uPlot from "/dashboard/uPlot.esm.js";');
    expect(text).not.toMatch(/: string|interface /);
  });

  it("is not sent again to a browser that has it", async () => {
    const { headers } = await ask({ url: "/dashboard/style.css" });
    const etag = String(headers["etag"]);
    expect(etag).toMatch(/^"[\w-]{22}"$/);
    const again = { url: "/dashboard/style.css", headers: { "if-none-match": `"x", ${etag}` } };
    expect(await ask(again)).toMatchObject({ status: 304, text: "" });
    const other = { url: "/dashboard/style.css", headers: { "if-none-match": '"x"' } };
    expect(await ask(other)).toMatchObject({ status: 200 });
  });

  it.each([
    "/dashboard/",
    "/dashboard/load-dashboard.ts",
    "/dashboard/../load-dashboard.ts",
    "/dashboard/..%2fload-dashboard.ts",
    "/dashboard/%2e%2e/load-dashboard.ts",
    "/dashboard/views/../../package.json",
    "/dashboard/views/../main.ts/../../../../../../etc/passwd",
    "/dashboard//etc/passwd",
    "/dashboard/format.test.ts",
    "/dashboard/tsconfig.json",
  ])("is its own files alone: %s is not found", async (url) => {
    expect(await ask({ url })).toMatchObject({ status: 404 });
  });

  it("takes nothing but GET and HEAD", async () => {
    expect(await ask({ url: "/", method: "HEAD" })).toMatchObject({ status: 200, text: "" });
    expect(await ask({ url: "/", method: "POST" })).toMatchObject({
      status: 405,
      headers: { allow: "GET, HEAD" },
    });
  });
});

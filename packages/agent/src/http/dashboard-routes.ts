/**
 * The web page: a fixed set of files that are held in memory, each under the one path that it has,
 * so that no path of a request ever leads to a file system. They are the same for everybody and tell
 * nothing about guests; what they then ask of the API needs the token like anything else.
 */
import type { DashboardFile, DashboardFiles } from "@vmferry/dashboard";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { HttpServer } from "./http-server.ts";

/** Nothing from elsewhere, nothing inline, no text that becomes markup, in nobody's frame. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

const HEADERS = {
  "content-security-policy": CONTENT_SECURITY_POLICY,
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  // Kept, and asked for every time: a page never works with modules of another version.
  "cache-control": "no-cache",
};

export function registerDashboardRoutes(app: HttpServer, files: DashboardFiles): void {
  for (const [path, file] of files) {
    app.get(path, { schema: { hide: true }, config: { withoutToken: true } }, (request, reply) =>
      answer(file, request, reply),
    );
  }
}

function answer(file: DashboardFile, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  reply.headers({ ...HEADERS, etag: file.etag });
  const known = request.headers["if-none-match"]?.split(",").map((tag) => tag.trim());
  if (known?.includes(file.etag) === true) return reply.code(304).send();
  return reply.type(file.contentType).send(file.content);
}

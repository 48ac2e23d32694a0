import type { HTTPMethods } from "fastify";
import { ProblemError } from "../problem-error.ts";
import type { HttpServer } from "./http-server.ts";

const METHODS: readonly HTTPMethods[] = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
];

/**
 * Answers 405 with `Allow` where a route exists for other methods; the router by itself would say
 * that there is nothing. Call it before the first route; the function that it returns, after the last.
 */
export function refuseOtherMethods(app: HttpServer): () => void {
  const offered = new Map<string, Set<HTTPMethods>>();
  app.addHook("onRoute", ({ url, method }) => {
    const methods = offered.get(url) ?? new Set();
    for (const one of [method].flat()) methods.add(one);
    offered.set(url, methods);
  });
  return () => {
    for (const [url, methods] of [...offered]) refuse(app, url, methods);
  };
}

function refuse(app: HttpServer, url: string, methods: ReadonlySet<HTTPMethods>): void {
  const allow = [...methods].join(", ");
  app.route({
    url,
    schema: { hide: true },
    method: METHODS.filter((method) => !methods.has(method)),
    // Before the body is read: whatever it holds, the answer is the same.
    onRequest: (_request, reply, done) => {
      reply.header("allow", allow);
      done(new ProblemError(`Offered here: ${allow}.`, { code: "method-not-allowed" }));
    },
    handler: (_request, reply) => reply.send(),
  });
}

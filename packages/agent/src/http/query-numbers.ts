import type { FastifyRequest } from "fastify";

interface QuerySchema {
  readonly properties?: Readonly<Record<string, { readonly type?: unknown }>>;
}

/**
 * Turns the query's digits into numbers where the route's schema says integer, and leaves anything
 * else for the validator to refuse. The validator itself coerces nothing: it would read "" as 0 in
 * a query, and "1" as 1 in a body.
 */
export function numberQuery(request: FastifyRequest): void {
  const schema = request.routeOptions.schema?.querystring as QuerySchema | undefined;
  const query = request.query as Record<string, unknown>;
  for (const [name, { type }] of Object.entries(schema?.properties ?? {})) {
    const text = query[name];
    if (type === "integer" && typeof text === "string" && /^\d{1,16}$/.test(text)) {
      query[name] = Number(text);
    }
  }
}

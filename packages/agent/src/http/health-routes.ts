import { Type } from "typebox";
import { ReadinessReasonSchema, type Readiness } from "./readiness.ts";
import type { HttpServer } from "./http-server.ts";

const ReadinessSchema = Type.Object({
  status: Type.Enum(["ready", "not-ready"]),
  reasons: Type.Array(ReadinessReasonSchema),
});

/** For probes, which carry no token: whether the process lives, and whether it can work. */
export function registerHealthRoutes(app: HttpServer, readiness: Readiness): void {
  app.get(
    "/healthz",
    {
      config: { withoutToken: true },
      schema: { response: { 200: Type.Object({ status: Type.Enum(["ok"]) }) } },
    },
    () => ({ status: "ok" }),
  );

  app.get(
    "/readyz",
    {
      config: { withoutToken: true },
      schema: { response: { 200: ReadinessSchema, 503: ReadinessSchema } },
    },
    async (_request, reply) => {
      const reasons = await readiness();
      const ready = reasons.length === 0;
      return reply.code(ready ? 200 : 503).send({ status: ready ? "ready" : "not-ready", reasons });
    },
  );
}

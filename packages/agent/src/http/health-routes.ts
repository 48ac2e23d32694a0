import { Type } from "typebox";
import { json } from "./described-responses.ts";
import { ReadinessReasonSchema, type Readiness } from "./readiness.ts";
import type { HttpServer } from "./http-server.ts";

const HealthSchema = Type.Object({ status: Type.Enum(["ok"]) });
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
      schema: {
        tags: ["agent"],
        operationId: "getHealth",
        summary: "Does the process live?",
        security: [],
        response: { 200: json("It does.", HealthSchema) },
      },
    },
    () => ({ status: "ok" }),
  );

  app.get(
    "/readyz",
    {
      config: { withoutToken: true },
      schema: {
        tags: ["agent"],
        operationId: "getReadiness",
        summary: "Can it work?",
        security: [],
        response: {
          200: json("It can.", ReadinessSchema),
          503: json("Not now, and why.", ReadinessSchema),
        },
      },
    },
    async (_request, reply) => {
      const reasons = await readiness();
      const ready = reasons.length === 0;
      return reply.code(ready ? 200 : 503).send({ status: ready ? "ready" : "not-ready", reasons });
    },
  );
}

import { Type } from "typebox";
import type { AgentMetrics } from "../metrics/agent-metrics.ts";
import { problems } from "./described-responses.ts";
import type { HttpServer } from "./http-server.ts";

export function registerMetricsRoute(app: HttpServer, metrics: AgentMetrics): void {
  const exposition = { "text/plain": { schema: Type.String() } };
  app.get(
    "/metrics",
    {
      schema: {
        tags: ["agent"],
        operationId: "getMetrics",
        summary: "For Prometheus; docs/metrics.md lists them",
        response: {
          200: { description: "Prometheus' text format.", content: exposition },
          ...problems(),
        },
      },
    },
    async (_request, reply) => {
      return reply.header("content-type", metrics.contentType).send(await metrics.text());
    },
  );
}

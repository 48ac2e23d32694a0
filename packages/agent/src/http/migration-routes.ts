import type { Clock } from "@vmferry/core";
import {
  parseTraceParent,
  type MigrationLimitsPatch,
  type MigrationObject,
  type MigrationRequest,
  type MigrationResolve,
  type MigrationRole,
  type PreflightReport,
} from "@vmferry/protocol";
import type { FastifyReply } from "fastify";
import { ProblemError } from "../problem-error.ts";
import type { HttpServer } from "./http-server.ts";
import { IdempotencyKeys } from "./idempotency-keys.ts";
import type { MigrationService } from "./migration-service.ts";
import {
  cancelMigrationSchema,
  getMigrationSchema,
  listMigrationsSchema,
  patchMigrationSchema,
  postcopyMigrationSchema,
  preflightMigrationSchema,
  resolveMigrationSchema,
  startMigrationSchema,
  waitForMigrationSchema,
} from "./migration-schemas.ts";

interface StartHeaders {
  "idempotency-key"?: string;
  traceparent?: string;
}

interface ById {
  Params: { id: string };
}

export interface MigrationRoutesOptions {
  readonly role: MigrationRole;
  readonly migrations: MigrationService;
  readonly clock: Clock;
}

export function registerMigrationRoutes(app: HttpServer, options: MigrationRoutesOptions): void {
  registerReadingRoutes(app, options);
  registerStartRoute(app, options);
  registerSteeringRoutes(app, options);
}

function registerReadingRoutes(app: HttpServer, { migrations }: MigrationRoutesOptions): void {
  app.get<{ Querystring: { limit: number; cursor?: string } }>(
    "/v1/migrations",
    { schema: listMigrationsSchema },
    (request) => migrations.list(request.query),
  );

  app.get<ById>("/v1/migrations/:id", { schema: getMigrationSchema }, (request) =>
    migrations.get(request.params.id),
  );

  app.get<ById & { Querystring: { timeoutMs: number } }>(
    "/v1/migrations/:id/wait",
    { schema: waitForMigrationSchema },
    (request, reply) => {
      const { id } = request.params;
      return migrations.wait(id, request.query.timeoutMs, goneSignal(reply));
    },
  );
}

/** Fires when the client is no longer there to be answered. */
function goneSignal({ raw }: FastifyReply): AbortSignal {
  const controller = new AbortController();
  raw.once("close", () => {
    controller.abort();
  });
  return controller.signal;
}

function registerStartRoute(app: HttpServer, options: MigrationRoutesOptions): void {
  const { migrations, role, clock } = options;
  const keys = new IdempotencyKeys(clock);

  app.post<{ Body: MigrationRequest; Headers: StartHeaders }>(
    "/v1/migrations",
    { schema: startMigrationSchema },
    async ({ body, headers }, reply) => {
      const key = headers["idempotency-key"];
      const traceParent = parseTraceParent(headers.traceparent);
      const start = async (): Promise<string> => {
        const migration = await (migrations.start?.(body, traceParent) ?? elsewhere(role));
        return migration.id;
      };
      const id = await (key === undefined ? start() : keys.once(key, body, start));
      return reply.code(202).header("location", `/v1/migrations/${id}`).send(migrations.get(id));
    },
  );

  app.post<{ Body: MigrationRequest }>(
    "/v1/migrations/preflight",
    { schema: preflightMigrationSchema },
    ({ body }): Promise<PreflightReport> => migrations.preflight?.(body) ?? elsewhere(role),
  );
}

function registerSteeringRoutes(app: HttpServer, options: MigrationRoutesOptions): void {
  const { migrations, role } = options;

  app.patch<ById & { Body: { limits: MigrationLimitsPatch } }>(
    "/v1/migrations/:id",
    { schema: patchMigrationSchema },
    ({ params, body }): Promise<MigrationObject> =>
      migrations.setLimits?.(params.id, body.limits) ?? elsewhere(role),
  );

  app.post<ById>(
    "/v1/migrations/:id/post-copy",
    { schema: postcopyMigrationSchema },
    async ({ params }, reply) => {
      const migration = await (migrations.postcopy?.(params.id) ?? elsewhere(role));
      return reply.code(202).send(migration);
    },
  );

  app.post<ById & { Body: MigrationResolve }>(
    "/v1/migrations/:id/resolve",
    { schema: resolveMigrationSchema },
    ({ params, body }): Promise<MigrationObject> =>
      migrations.resolve?.(params.id, body.owner) ?? elsewhere(role),
  );

  app.delete<ById>(
    "/v1/migrations/:id",
    { schema: cancelMigrationSchema },
    async ({ params }, reply) => {
      const migration = await (migrations.cancel?.(params.id) ?? elsewhere(role));
      return reply.code(202).send(migration);
    },
  );
}

function elsewhere(role: MigrationRole): never {
  const other = role === "dest" ? "source" : "dest";
  throw new ProblemError(`Ask the ${other} agent: migrations are steered where they begin.`, {
    code: "not-on-this-agent",
  });
}

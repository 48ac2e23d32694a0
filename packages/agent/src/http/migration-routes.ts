import {
  MigrationListSchema,
  MigrationObjectSchema,
  MigrationPatchSchema,
  MigrationRequestSchema,
  MigrationResolveSchema,
  type MigrationLimitsPatch,
  type MigrationRequest,
  type MigrationResolve,
  type MigrationRole,
} from "@vmferry/protocol";
import type { FastifyReply } from "fastify";
import { Type } from "typebox";
import { ProblemError } from "../problem-error.ts";
import type { MigrationService } from "./migration-service.ts";
import type { HttpServer } from "./http-server.ts";

const HOUR_MS = 3_600_000;
const params = Type.Object({ id: Type.String() });
const listQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100 })),
    cursor: Type.Optional(Type.String({ maxLength: 64 })),
  },
  { additionalProperties: false },
);
const waitQuery = Type.Object(
  { timeoutMs: Type.Optional(Type.Integer({ minimum: 0, maximum: HOUR_MS, default: 30_000 })) },
  { additionalProperties: false },
);

interface ById {
  Params: { id: string };
}

export interface MigrationRoutesOptions {
  readonly role: MigrationRole;
  readonly migrations: MigrationService;
}

export function registerMigrationRoutes(app: HttpServer, options: MigrationRoutesOptions): void {
  registerReadingRoutes(app, options);
  registerSteeringRoutes(app, options);
}

function registerReadingRoutes(app: HttpServer, { migrations }: MigrationRoutesOptions): void {
  app.get<{ Querystring: { limit: number; cursor?: string } }>(
    "/v1/migrations",
    { schema: { querystring: listQuery, response: { 200: MigrationListSchema } } },
    (request) => migrations.list(request.query),
  );

  app.get<ById>(
    "/v1/migrations/:id",
    { schema: { params, response: { 200: MigrationObjectSchema } } },
    (request) => migrations.get(request.params.id),
  );

  app.get<ById & { Querystring: { timeoutMs: number } }>(
    "/v1/migrations/:id/wait",
    { schema: { params, querystring: waitQuery, response: { 200: MigrationObjectSchema } } },
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

function registerSteeringRoutes(app: HttpServer, options: MigrationRoutesOptions): void {
  const { migrations, role } = options;
  const elsewhere = (): never => {
    const other = role === "dest" ? "source" : "dest";
    throw new ProblemError(`Ask the ${other} agent: migrations are steered where they begin.`, {
      code: "not-on-this-agent",
    });
  };

  app.post<{ Body: MigrationRequest }>(
    "/v1/migrations",
    { schema: { body: MigrationRequestSchema, response: { 202: MigrationObjectSchema } } },
    async (request, reply) => {
      const migration = await (migrations.start?.(request.body) ?? elsewhere());
      const location = `/v1/migrations/${migration.id}`;
      return reply.code(202).header("location", location).send(migration);
    },
  );

  app.patch<ById & { Body: { limits: MigrationLimitsPatch } }>(
    "/v1/migrations/:id",
    { schema: { params, body: MigrationPatchSchema, response: { 200: MigrationObjectSchema } } },
    (request) => migrations.setLimits?.(request.params.id, request.body.limits) ?? elsewhere(),
  );

  app.post<ById>(
    "/v1/migrations/:id/post-copy",
    { schema: { params, response: { 202: MigrationObjectSchema } } },
    async (request, reply) => {
      const migration = await (migrations.postcopy?.(request.params.id) ?? elsewhere());
      return reply.code(202).send(migration);
    },
  );

  app.post<ById & { Body: MigrationResolve }>(
    "/v1/migrations/:id/resolve",
    { schema: { params, body: MigrationResolveSchema, response: { 200: MigrationObjectSchema } } },
    (request) => migrations.resolve?.(request.params.id, request.body.owner) ?? elsewhere(),
  );

  app.delete<ById>(
    "/v1/migrations/:id",
    { schema: { params, response: { 202: MigrationObjectSchema } } },
    async (request, reply) => {
      const migration = await (migrations.cancel?.(request.params.id) ?? elsewhere());
      return reply.code(202).send(migration);
    },
  );
}

import { fastify, LogController, type FastifyBaseLogger, type FastifyRequest } from "fastify";
import { systemClock, type Clock } from "@vmferry/core";
import type { DashboardFiles } from "@vmferry/dashboard";
import type { MigrationRole } from "@vmferry/protocol";
import type { Logger } from "pino";
import type { EventHub } from "../events/event-hub.ts";
import type { AgentMetrics } from "../metrics/agent-metrics.ts";
import { ProblemError } from "../problem-error.ts";
import { bearerRefusal } from "./bearer-refusal.ts";
import { bodyTypeRefusal } from "./body-type-refusal.ts";
import { hostRefusal, siteRefusal } from "./browser-refusal.ts";
import { answerClientError } from "./client-error.ts";
import { registerDashboardRoutes } from "./dashboard-routes.ts";
import { attachUpgrades } from "./event-sockets.ts";
import { registerEventRoutes } from "./events-route.ts";
import { registerGuestRoutes } from "./guest-routes.ts";
import type { GuestService } from "./guest-service.ts";
import type { HttpServer } from "./http-server.ts";
import { registerHealthRoutes } from "./health-routes.ts";
import { refuseOtherMethods } from "./method-refusals.ts";
import { registerMapRoute } from "./map-route.ts";
import { registerMigrationRoutes } from "./migration-routes.ts";
import type { MigrationService } from "./migration-service.ts";
import { registerMetricsRoute } from "./metrics-route.ts";
import { collectOpenApi, registerOpenApiRoute } from "./openapi.ts";
import { sendProblem } from "./problem-reply.ts";
import { numberQuery } from "./query-numbers.ts";
import type { Readiness } from "./readiness.ts";

export type { HttpServer };

export interface HttpServerOptions {
  readonly role: MigrationRole;
  readonly logger: Logger;
  readonly apiToken: string | null;
  readonly guests: GuestService;
  readonly migrations: MigrationService;
  readonly hub: EventHub;
  readonly readiness: Readiness;
  readonly metrics: AgentMetrics;
  /** What is served at `/`; by default there is no page. */
  readonly dashboard?: DashboardFiles;
  readonly heartbeatMs?: number;
  readonly clock?: Clock;
}

const BODY_BYTES_MAX = 64 * 1024;
const CONNECTIONS_MAX = 1024;

/** The HTTP API of an agent, with the WebSocket upgrades of its event streams; not yet listening. */
export function createHttpServer(options: HttpServerOptions): HttpServer {
  const {
    role,
    guests,
    migrations,
    hub,
    apiToken,
    heartbeatMs = 15_000,
    clock = systemClock,
  } = options;
  const app = createFastify(options.logger);
  addRequestChecks(app, apiToken);
  acceptJsonOnly(app);
  logResponses(app);
  app.setErrorHandler(sendProblem);
  app.setNotFoundHandler((request) => {
    throw new ProblemError(`No route of this agent answers ${request.method} on this path.`, {
      code: "not-found",
    });
  });

  collectOpenApi(app);
  // In a plugin, because the document collects the routes that come after it has loaded.
  app.register((routes, _options, done) => {
    const refuseTheOtherMethods = refuseOtherMethods(routes);
    registerHealthRoutes(routes, options.readiness);
    registerGuestRoutes(routes, guests);
    registerMigrationRoutes(routes, { role, migrations, clock });
    registerMapRoute(routes, migrations);
    registerEventRoutes(routes, { hub, migrations, heartbeatMs });
    registerMetricsRoute(routes, options.metrics);
    registerOpenApiRoute(routes);
    if (options.dashboard !== undefined) registerDashboardRoutes(routes, options.dashboard);
    refuseTheOtherMethods();
    done();
  });
  attachUpgrades(app, { hub, migrations, heartbeatMs, apiToken });
  return app;
}

function createFastify(logger: Logger): HttpServer {
  const loggerInstance: FastifyBaseLogger = logger;
  const app = fastify({
    loggerInstance,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES_MAX,
    // Event streams never end by themselves: closing the server has to end them.
    forceCloseConnections: true,
    requestTimeout: 30_000,
    keepAliveTimeout: 10_000,
    http: {
      headersTimeout: 10_000,
      maxHeaderSize: 16 * 1024,
      // curl offers h2c with any request: only WebSockets are upgraded, the rest is plain HTTP.
      shouldUpgradeCallback: (request) => request.headers.upgrade?.toLowerCase() === "websocket",
    },
    // Unknown properties are errors, and a body's types are what they are: fastify by itself
    // would remove the former and convert the latter.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, allErrors: true } },
    frameworkErrors: sendProblem,
    clientErrorHandler: answerClientError,
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  // Response schemas describe; a serializer made from them would drop what they do not name.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  return app;
}

/** What every request has to pass before anything of it is read. */
function addRequestChecks(app: HttpServer, apiToken: string | null): void {
  app.addHook("onRequest", (request, reply, done) => {
    reply.headers({ "cache-control": "no-store", "x-content-type-options": "nosniff" });
    done(refusal(request, apiToken) ?? undefined);
  });
  app.addHook("preValidation", (request, _reply, done) => {
    numberQuery(request);
    done();
  });
}

function refusal(request: FastifyRequest, apiToken: string | null): ProblemError | null {
  const { headers, method, routeOptions } = request;
  if (routeOptions.config.withoutToken === true) return null;
  return (
    hostRefusal(headers, apiToken) ??
    siteRefusal({ method, headers }, apiToken) ??
    bearerRefusal(headers, apiToken) ??
    bodyTypeRefusal(headers)
  );
}

function acceptJsonOnly(app: HttpServer): void {
  const parse = app.getDefaultJsonParser("error", "error");
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    // Clients that set the type on every request send nothing with a DELETE.
    if (body === "") done(null, undefined);
    else void parse(request, body.toString(), done);
  });
}

function logResponses(app: HttpServer): void {
  app.addHook("onResponse", (request, reply, done) => {
    const { method, routeOptions } = request;
    const elapsedMs = Math.round(reply.elapsedTime);
    // The route and not the URL: a query is the caller's business.
    request.log.debug(
      { method, route: routeOptions.url, status: reply.statusCode, elapsedMs },
      "request answered",
    );
    done();
  });
}

/**
 * The OpenAPI document of the API, made from the schemas that requests are checked against. A copy
 * of it is docs/openapi.json.
 */
import { fastifySwagger, type FastifyDynamicSwaggerOptions } from "@fastify/swagger";
import {
  EventSchema,
  GuestAttachSchema,
  GuestDefinitionSchema,
  GuestListSchema,
  GuestObjectSchema,
  MigrationListSchema,
  MigrationMapSchema,
  MigrationObjectSchema,
  MigrationPatchSchema,
  MigrationRequestSchema,
  MigrationResolveSchema,
  PreflightReportSchema,
  ProblemSchema,
} from "@vmferry/protocol";
import type { TSchema } from "typebox";
import { VERSION } from "../software.ts";
import type { HttpServer } from "./http-server.ts";
import { json, problems } from "./described-responses.ts";
import { Type } from "typebox";

/** Where one of them stands in the document, it is a reference. */
const NAMED: Readonly<Record<string, TSchema>> = {
  Event: EventSchema,
  GuestAttach: GuestAttachSchema,
  GuestDefinition: GuestDefinitionSchema,
  GuestList: GuestListSchema,
  Guest: GuestObjectSchema,
  MigrationList: MigrationListSchema,
  MigrationMap: MigrationMapSchema,
  Migration: MigrationObjectSchema,
  MigrationPatch: MigrationPatchSchema,
  MigrationRequest: MigrationRequestSchema,
  MigrationResolve: MigrationResolveSchema,
  PreflightReport: PreflightReportSchema,
  Problem: ProblemSchema,
};

const DESCRIPTION = `Source agents and dest agents have the same routes; migrations are started and \
steered at the source. Sizes are in bytes, times in milliseconds, timestamps in RFC 3339; null is \
"not known" in answers and "no limit" in requests. Errors are RFC 9457 problems with a stable \
\`code\`; unknown properties, query parameters and types that nearly fit are errors.`;

const OPTIONS: FastifyDynamicSwaggerOptions = {
  openapi: {
    openapi: "3.1.0",
    info: {
      title: "vmferry agent",
      version: VERSION,
      description: DESCRIPTION,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" } as { name: string },
    },
    security: [{ bearer: [] }],
    components: {
      schemas: NAMED as Record<string, never>,
      securitySchemes: {
        bearer: {
          type: "http",
          scheme: "bearer",
          description:
            "VMFERRY_API_TOKEN of the agent; where it is not set, no token is asked for.",
        },
      },
    },
  },
  convertConstToEnum: false,
  transformObject: (document) =>
    "openapiObject" in document ? referring(document.openapiObject) : {},
};

/** To be called before the routes that the document is to have, which come in a plugin of their own. */
export function collectOpenApi(app: HttpServer): void {
  app.register(fastifySwagger, OPTIONS);
}

export function registerOpenApiRoute(app: HttpServer): void {
  app.get(
    "/openapi.json",
    {
      schema: {
        tags: ["agent"],
        operationId: "getOpenApi",
        summary: "This document",
        response: { 200: json("OpenAPI 3.1.", Type.Object({})), ...problems() },
      },
    },
    () => app.swagger(),
  );
}

/** The document with a reference wherever a named schema stands in full. */
function referring(document: object): object {
  const { components } = document as { components: { schemas: Record<string, object> } };
  const entries = Object.entries(components.schemas);
  const names = new Map(entries.map(([name, schema]) => [JSON.stringify(schema), name]));
  const refer = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null) return value;
    const name = names.get(JSON.stringify(value));
    return name === undefined ? within(value) : { $ref: `#/components/schemas/${name}` };
  };
  const within = (value: object): object =>
    Array.isArray(value)
      ? value.map(refer)
      : Object.fromEntries(Object.entries(value).map(([key, each]) => [key, refer(each)]));
  const schemas = Object.fromEntries(entries.map(([name, schema]) => [name, within(schema)]));
  return { ...within({ ...document, components: {} }), components: { ...components, schemas } };
}

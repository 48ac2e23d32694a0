/** What the migration routes take and answer: checked by the server, shown in the API's document. */
import {
  MAP_CELLS_MAX,
  MigrationListSchema,
  MigrationMapSchema,
  MigrationObjectSchema,
  MigrationPatchSchema,
  MigrationRequestSchema,
  MigrationResolveSchema,
  PreflightReportSchema,
} from "@vmferry/protocol";
import { Type } from "typebox";
import { bodyProblems, json, located, problems } from "./described-responses.ts";

const HOUR_MS = 3_600_000;
const tags = ["migrations"];
const params = Type.Object({ id: Type.String() });

export const listMigrationsSchema = {
  tags,
  operationId: "listMigrations",
  summary: "Migrations, newest first",
  description:
    "Active ones always, finished ones as many and as long as the agent is set to keep them.",
  querystring: Type.Object(
    {
      limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100 })),
      /** `nextCursor` of the page before. */
      cursor: Type.Optional(Type.String({ maxLength: 64 })),
    },
    { additionalProperties: false },
  ),
  response: { 200: json("One page.", MigrationListSchema), ...problems() },
};

export const getMigrationSchema = {
  tags,
  operationId: "getMigration",
  summary: "One migration",
  description: "The same id exists on both agents.",
  params,
  response: {
    200: json("As it is now.", MigrationObjectSchema),
    ...problems("migration-not-found"),
  },
};

export const waitForMigrationSchema = {
  tags,
  operationId: "waitForMigration",
  summary: "Wait until a migration is over",
  params,
  querystring: Type.Object(
    { timeoutMs: Type.Optional(Type.Integer({ minimum: 0, maximum: HOUR_MS, default: 30_000 })) },
    { additionalProperties: false },
  ),
  response: {
    200: json("Its final state, or the present one when the time is up.", MigrationObjectSchema),
    ...problems("migration-not-found"),
  },
};

export const getMigrationMapSchema = {
  tags,
  operationId: "getMigrationMap",
  summary: "What has been sent of memory and disks",
  description:
    "A letter a cell. The source draws it while it copies, or serves what follows the guest; before, " +
    "after and at the dest `ram` is null and `disks` empty.",
  params,
  querystring: Type.Object(
    { cells: Type.Optional(Type.Integer({ minimum: 1, maximum: MAP_CELLS_MAX, default: 1024 })) },
    { additionalProperties: false },
  ),
  response: {
    200: json("As it is now.", MigrationMapSchema),
    ...problems("migration-not-found"),
  },
};

/** Visible ASCII; two header lines arrive as one with a blank in it. */
const IdempotencyKey = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: "^[!-~]*$",
  description:
    "Makes the request safe to repeat. The same key with the same body is the same migration; with " +
    "another body it is refused. Kept for 24 hours, the latest 1000, until the agent restarts.",
});

/** No pattern: the specification has one that is not valid be as good as none. */
const TraceParent = Type.String({
  description: "W3C Trace Context: both agents log its trace id, and the object shows it.",
});

export const startMigrationSchema = {
  tags,
  operationId: "startMigration",
  summary: "Start a migration (source agent)",
  headers: Type.Object({
    "idempotency-key": Type.Optional(IdempotencyKey),
    traceparent: Type.Optional(TraceParent),
  }),
  body: MigrationRequestSchema,
  response: {
    202: located(json("It has begun.", MigrationObjectSchema)),
    ...bodyProblems(
      "guest-not-found",
      "migration-not-found",
      "guest-not-running",
      "migration-active",
      "idempotency-conflict",
      "not-on-this-agent",
      "destination-unknown",
      "fallback-unavailable",
      "not-available",
      "preflight-failed",
      "agent-stopped",
    ),
  },
};

export const preflightMigrationSchema = {
  tags,
  operationId: "preflightMigration",
  summary: "Check whether a guest could be migrated (source agent)",
  description:
    "What a migration looks at before it begins, of both hosts. Nothing is begun, and a check that " +
    "fails is no error of the request: a migration would be refused for it.",
  body: MigrationRequestSchema,
  response: {
    200: json("Every check by its name.", PreflightReportSchema),
    ...bodyProblems(
      "guest-not-found",
      "guest-not-running",
      "migration-active",
      "not-on-this-agent",
      "destination-unknown",
      "not-available",
    ),
  },
};

export const patchMigrationSchema = {
  tags,
  operationId: "patchMigration",
  summary: "Change the limits of a running migration (source agent)",
  description:
    "Takes effect within a second. A limit that is not named stays; null lifts one. `totalMsMax` " +
    "counts from the beginning of the migration.",
  params,
  body: MigrationPatchSchema,
  response: {
    200: json("As it is now.", MigrationObjectSchema),
    ...bodyProblems(
      "migration-not-found",
      "past-hand-over",
      "migration-ended",
      "not-on-this-agent",
    ),
  },
};

export const postcopyMigrationSchema = {
  tags,
  operationId: "switchMigrationToPostCopy",
  summary: "Hand the guest over soon, and send the rest of its memory afterwards (source agent)",
  params,
  response: {
    202: json("It is asked to switch.", MigrationObjectSchema),
    ...problems(
      "migration-not-found",
      "past-hand-over",
      "post-copy-unavailable",
      "migration-ended",
      "not-on-this-agent",
    ),
  },
};

export const resolveMigrationSchema = {
  tags,
  operationId: "resolveMigration",
  summary: "Say whose the guest of a hand-over in doubt is",
  description: "Only when the other host has been seen to be unable to run the guest.",
  params,
  body: MigrationResolveSchema,
  response: {
    200: json("As it is now.", MigrationObjectSchema),
    ...bodyProblems("migration-not-found", "not-in-doubt"),
  },
};

export const cancelMigrationSchema = {
  tags,
  operationId: "cancelMigration",
  summary: "Cancel a migration (source agent)",
  description: "Idempotent; refused once ownership has been handed over.",
  params,
  response: {
    202: json("It is asked to end.", MigrationObjectSchema),
    ...problems("migration-not-found", "past-hand-over", "not-on-this-agent"),
  },
};

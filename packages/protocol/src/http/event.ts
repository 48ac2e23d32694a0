import { Type, type Static } from "typebox";
import { GuestObjectSchema, type GuestObject } from "./guest-object.ts";
import { MigrationErrorSchema, MigrationObjectSchema } from "./migration-object.ts";
import type { MigrationError, MigrationObject } from "./migration-object.ts";
import { CountSchema, TimestampSchema } from "./schema-parts.ts";

export const EventTypeSchema = Type.Enum([
  "migration.phase",
  "migration.progress",
  "migration.pass",
  "migration.warning",
  "migration.completed",
  "migration.failed",
  "migration.cancelled",
  "guest.state",
]);

/** The data of one event; `id` and `type` are the SSE fields of the same names once more. */
export const EventSchema = Type.Object({
  id: CountSchema,
  at: TimestampSchema,
  type: EventTypeSchema,
  migration: Type.Optional(MigrationObjectSchema),
  /** With `migration.warning` only: what degraded, while the migration goes on. */
  warning: Type.Optional(MigrationErrorSchema),
  guest: Type.Optional(GuestObjectSchema),
});

export type EventType = Static<typeof EventTypeSchema>;

/** An event before the hub has given it an id and a time. */
export type EventBody =
  | {
      readonly type: Exclude<EventType, "guest.state" | "migration.warning">;
      readonly migration: MigrationObject;
    }
  | {
      readonly type: "migration.warning";
      readonly migration: MigrationObject;
      readonly warning: MigrationError;
    }
  | { readonly type: "guest.state"; readonly guest: GuestObject };

export type AgentEvent = { readonly id: number; readonly at: string } & EventBody;

/** After this event a migration has no other. */
export function isFinalEvent(event: EventBody): boolean {
  return (
    event.type === "migration.completed" ||
    event.type === "migration.failed" ||
    event.type === "migration.cancelled"
  );
}

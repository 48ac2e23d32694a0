import { messageOf } from "@vmferry/core";
import { QmpError } from "./qmp-error.ts";
import { QmpFields } from "./qmp-fields.ts";
import type { UncheckedObject } from "./qmp-line-reader.ts";
import { readMigrationStatus, type MigrationStatus } from "./query-migrate.ts";

export interface QmpEvent {
  readonly name: string;
  /** As QEMU sent it: check a member before relying on it. Empty for an event without data. */
  readonly data: UncheckedObject;
  /** By QEMU's clock; -1 in both when that clock could not be read. */
  readonly seconds: number;
  readonly microseconds: number;
}

export function readQmpEvent(message: UncheckedObject): QmpEvent {
  try {
    const fields = new QmpFields(message, "event");
    const timestamp = fields.fields("timestamp");
    return {
      name: fields.string("event"),
      data: fields.objectOrEmpty("data"),
      seconds: timestamp.integer("seconds"),
      microseconds: timestamp.integer("microseconds"),
    };
  } catch (cause) {
    const reason = messageOf(cause);
    throw new QmpError(reason, { code: "qmp-protocol", reason }, { cause });
  }
}

/** The status that a MIGRATION event announces, or null for any other event. */
export function migrationStatusOf(event: QmpEvent): MigrationStatus | null {
  if (event.name !== "MIGRATION") return null;
  return readMigrationStatus(new QmpFields(event.data, "MIGRATION"));
}

/** The pass that a MIGRATION_PASS event announces, or null for any other event. */
export function migrationPassOf(event: QmpEvent): number | null {
  if (event.name !== "MIGRATION_PASS") return null;
  return new QmpFields(event.data, "MIGRATION_PASS").count("pass");
}

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

/** How a block job stands. */
export type BlockJobState =
  | { readonly kind: "ready" }
  /** `error`: what kept it from being done; null when nothing did. */
  | { readonly kind: "ended"; readonly error: string | null };

const JOB_ENDS = ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"];

/** What an event says of the block job `jobId`, or null for any other event. */
export function blockJobStateOf(event: QmpEvent, jobId: string): BlockJobState | null {
  const ends = JOB_ENDS.includes(event.name);
  if (!ends && event.name !== "BLOCK_JOB_READY") return null;
  const fields = new QmpFields(event.data, event.name);
  if (fields.string("device") !== jobId) return null;
  return ends ? { kind: "ended", error: fields.stringOrNull("error") } : { kind: "ready" };
}

import { QmpFields } from "./qmp-fields.ts";

// `postcopy-device` is newer than QEMU 10.0; a status that is not listed ends the query with an
// error, because nobody may guess who owns the guest in a state that nobody has thought about.
const MIGRATION_STATUSES = [
  "none",
  "setup",
  "cancelling",
  "cancelled",
  "active",
  "postcopy-device",
  "postcopy-active",
  "postcopy-paused",
  "postcopy-recover-setup",
  "postcopy-recover",
  "completed",
  "failed",
  "colo",
  "pre-switchover",
  "device",
  "wait-unplug",
] as const;

export type MigrationStatus = (typeof MIGRATION_STATUSES)[number];

export interface MigrationRam {
  readonly transferredBytes: number;
  readonly remainingBytes: number;
  readonly totalBytes: number;
  readonly pageSizeBytes: number;
  readonly zeroPages: number;
  readonly normalPages: number;
  readonly normalBytes: number;
  /** `dirty-sync-count`: how often QEMU has collected the dirty bitmap. */
  readonly passes: number;
  /** `dirty-pages-rate`. */
  readonly dirtyPagesPerSecond: number;
  /** 10^6 bits a second. */
  readonly mbps: number;
  readonly postcopyRequests: number;
  readonly pagesPerSecond: number | null;
  readonly precopyBytes: number | null;
  readonly downtimeBytes: number | null;
  readonly postcopyBytes: number | null;
}

export interface QueryMigrate {
  /** `none` also when QEMU has never migrated, which it says by leaving the status out. */
  readonly status: MigrationStatus;
  /** Only there while a migration runs and after it completed. */
  readonly ram: MigrationRam | null;
  readonly totalMs: number | null;
  readonly setupMs: number | null;
  readonly downtimeMs: number | null;
  readonly expectedDowntimeMs: number | null;
  readonly cpuThrottlePercent: number | null;
  readonly errorDescription: string | null;
  /** Not empty: an outgoing migration would be refused. */
  readonly blockedReasons: readonly string[];
}

export function readQueryMigrate(value: unknown): QueryMigrate {
  const fields = new QmpFields(value, "query-migrate");
  const ram = fields.fieldsOrNull("ram");
  return {
    status: fields.stringOrNull("status") === null ? "none" : readMigrationStatus(fields),
    ram: ram === null ? null : readRam(ram),
    totalMs: fields.countOrNull("total-time"),
    setupMs: fields.countOrNull("setup-time"),
    downtimeMs: fields.countOrNull("downtime"),
    expectedDowntimeMs: fields.countOrNull("expected-downtime"),
    cpuThrottlePercent: fields.countOrNull("cpu-throttle-percentage"),
    errorDescription: fields.stringOrNull("error-desc"),
    blockedReasons: fields.stringsOrNone("blocked-reasons"),
  };
}

export function readMigrationStatus(fields: QmpFields): MigrationStatus {
  return fields.oneOf("status", MIGRATION_STATUSES);
}

function readRam(ram: QmpFields): MigrationRam {
  return {
    transferredBytes: ram.count("transferred"),
    remainingBytes: ram.count("remaining"),
    totalBytes: ram.count("total"),
    pageSizeBytes: ram.count("page-size"),
    zeroPages: ram.count("duplicate"),
    normalPages: ram.count("normal"),
    normalBytes: ram.count("normal-bytes"),
    passes: ram.count("dirty-sync-count"),
    dirtyPagesPerSecond: ram.count("dirty-pages-rate"),
    mbps: ram.amount("mbps"),
    postcopyRequests: ram.count("postcopy-requests"),
    pagesPerSecond: ram.countOrNull("pages-per-second"),
    precopyBytes: ram.countOrNull("precopy-bytes"),
    downtimeBytes: ram.countOrNull("downtime-bytes"),
    postcopyBytes: ram.countOrNull("postcopy-bytes"),
  };
}

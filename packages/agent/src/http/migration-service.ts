import type {
  MigrationLimitsPatch,
  MigrationList,
  MigrationMap,
  MigrationObject,
  MigrationRequest,
  MigrationResolve,
  PreflightReport,
} from "@vmferry/protocol";
import type { ListPage } from "../migrations/migration-store.ts";

/**
 * What the API needs of the migrations of this host. Where an optional method is missing, its route
 * answers `not-on-this-agent`.
 */
export interface MigrationService {
  list(page: ListPage): MigrationList;
  /** Throws `migration-not-found`. */
  get(id: string): MigrationObject;
  /** Resolves when the migration is final, when the time is up or when the signal fires. */
  wait(id: string, timeoutMs: number, signal?: AbortSignal): Promise<MigrationObject>;
  /** Where it is missing, nothing is known here. Throws `migration-not-found`. */
  map?(id: string, cells: number): MigrationMap;
  /** What `start` would look at first; nothing is begun. Rejects where `start` would at once. */
  preflight?(request: MigrationRequest): Promise<PreflightReport>;
  /** `traceParent`: version 00, valid; null where the caller gave none. */
  start?(request: MigrationRequest, traceParent: string | null): Promise<MigrationObject>;
  /** Idempotent; throws `past-hand-over` once ownership has gone. */
  cancel?(id: string): Promise<MigrationObject>;
  /** Hands over now, and memory follows; rejects with `post-copy-unavailable` or `past-hand-over`. */
  postcopy?(id: string): Promise<MigrationObject>;
  /** A person says whose the guest is; rejects with `not-in-doubt`. */
  resolve?(id: string, owner: MigrationResolve["owner"]): Promise<MigrationObject>;
  setLimits?(id: string, limits: MigrationLimitsPatch): Promise<MigrationObject>;
}

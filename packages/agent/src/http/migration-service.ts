import type {
  MigrationLimitsPatch,
  MigrationList,
  MigrationObject,
  MigrationRequest,
} from "@vmferry/protocol";
import type { ListPage } from "../migrations/migration-store.ts";

/**
 * What the API needs of the migrations of this host; a MigrationStore is all of it that a dest
 * agent has. Where an optional method is missing, its route answers `not-on-this-agent`.
 */
export interface MigrationService {
  list(page: ListPage): MigrationList;
  /** Throws `migration-not-found`. */
  get(id: string): MigrationObject;
  /** Resolves when the migration is final, when the time is up or when the signal fires. */
  wait(id: string, timeoutMs: number, signal?: AbortSignal): Promise<MigrationObject>;
  start?(request: MigrationRequest): Promise<MigrationObject>;
  /** Idempotent; throws `past-hand-over` once ownership has gone. */
  cancel?(id: string): Promise<MigrationObject>;
  setLimits?(id: string, limits: MigrationLimitsPatch): Promise<MigrationObject>;
}

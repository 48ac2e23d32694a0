import type { Logger, MigrationStore } from "@vmferry/agent";
import type { OnWarning } from "./migration-plan.ts";

/** Warnings of a migration go to its object and to the log. */
export function warnOf(migrationId: string, store: MigrationStore, logger: Logger): OnWarning {
  return (code, detail) => {
    logger.warn({ code, detail }, "warning");
    store.warn(migrationId, { code, detail });
  };
}

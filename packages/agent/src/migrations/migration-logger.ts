import { traceIdOf } from "@vmferry/protocol";
import type { Logger } from "../log.ts";

export interface LoggedMigration {
  readonly migrationId: string;
  readonly guest: string;
  readonly traceParent: string | null | undefined;
}

/** Its lines say of which migration, and of whose trace, they are. */
export function migrationLogger(
  logger: Logger,
  { migrationId, guest, traceParent }: LoggedMigration,
): Logger {
  const traceId = traceIdOf(traceParent);
  return logger.child({ migrationId, guest, ...(traceId === null ? {} : { traceId }) });
}

import type { MigrationObject } from "@vmferry/protocol";
import type { MigrationOutcome } from "./migration-store.ts";
import { newMigrationObject, UNKNOWN_RESULT, type NewMigration } from "./new-migration-object.ts";

export interface EndedMigration extends Omit<NewMigration, "startedAt"> {
  /** When the journal was written last. */
  readonly endedAt: Date;
  readonly outcome: MigrationOutcome;
}

/** A migration of which nothing but its journal is left. */
export function endedMigration({ endedAt, outcome, ...about }: EndedMigration): MigrationObject {
  const { phase } = outcome;
  return {
    ...newMigrationObject({ ...about, startedAt: null }),
    ...outcome,
    phases: [{ phase, at: endedAt.toISOString() }],
    mayCancel: false,
  };
}

/** `completed`, and nothing else known. */
export const COMPLETED_SOMEHOW: MigrationOutcome = { phase: "completed", result: UNKNOWN_RESULT };

/** A migration that is over, and of which an earlier life has written down no more than its journal. */
import {
  asProblemCode,
  COMPLETED_SOMEHOW,
  endedMigration,
  type Journal,
  type JournalRecordOf,
  type JournalShelf,
  type MigrationOutcome,
  type MigrationStore,
} from "@vmferry/agent";

export interface ShowEndedPorts {
  readonly store: Pick<MigrationStore, "restore">;
  readonly journals: Pick<JournalShelf<"source">, "writtenAt">;
}

const STAYED =
  "the guest stayed; the source agent ended before it had written down why the migration failed";

export async function showEnded(
  { store, journals }: ShowEndedPorts,
  { last, identity }: Pick<Journal<"source">, "last" | "identity">,
): Promise<void> {
  if (last === null) return;
  const { migrationId: id, peer: destination } = last;
  // A journal that cannot even be dated is not listed: nothing else may come of that.
  const endedAt = await journals.writtenAt(identity).catch(() => null);
  if (endedAt === null) return;
  const outcome = outcomeOf(last);
  const about = { id, role: "source", guest: identity.guest, destination } as const;
  store.restore([endedMigration({ ...about, endedAt, outcome })]);
}

function outcomeOf(last: JournalRecordOf<"source">): MigrationOutcome {
  if (last.kind === "done") return COMPLETED_SOMEHOW;
  const code = last.kind === "reclaimed" ? last.reason : "agent-stopped";
  return {
    phase: "failed",
    error: { code: asProblemCode(code, "agent-stopped"), detail: STAYED },
  };
}

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
  readonly journals: Pick<JournalShelf<"dest">, "writtenAt">;
}

const REFUSED =
  "the guest was refused here; the dest agent ended before it had written down what had happened";

export async function showEnded(
  { store, journals }: ShowEndedPorts,
  { last, identity }: Pick<Journal<"dest">, "last" | "identity">,
): Promise<void> {
  // A guest that was seen running before `complete` was written is for its session to tell of.
  if (last?.kind !== "complete" && last?.kind !== "refused") return;
  const { migrationId: id } = last;
  // A journal that cannot even be dated is not listed: nothing else may come of that.
  const endedAt = await journals.writtenAt(identity).catch(() => null);
  if (endedAt === null) return;
  const about = { id, role: "dest", guest: identity.guest, destination: "here" } as const;
  store.restore([endedMigration({ ...about, endedAt, outcome: outcomeOf(last) })]);
}

function outcomeOf(last: JournalRecordOf<"dest">): MigrationOutcome {
  if (last.kind !== "refused") return COMPLETED_SOMEHOW;
  const code = asProblemCode(last.reason, "agent-stopped");
  return { phase: "failed", error: { code, detail: REFUSED } };
}

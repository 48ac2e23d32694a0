/**
 * A guest that comes from outside: whatever earlier lives of it were here is over, unless its journal
 * says that nobody knows whose it is.
 */
import { ProblemError, type JournalRecordOf, type JournalShelf } from "@vmferry/agent";
import { messageOf, type Clock } from "@vmferry/core";

export interface TakeOverOptions {
  readonly journals: Pick<JournalShelf<"source">, "list" | "take" | "remove">;
  readonly clock: Clock;
}

/**
 * Resolves with its epoch here, which has to be larger than every one in which any host has had it.
 * Nobody knows those; but each move of it took longer than a second, so that the seconds since 1970
 * are. Rejects with `guest-in-doubt`, for a guest of the same name as well: a QEMU without a UUID is
 * known by nothing else.
 */
export async function takeOver(
  identity: { readonly guest: string; readonly uuid: string },
  { journals, clock }: TakeOverOptions,
): Promise<number> {
  const { guest, uuid } = identity;
  const known = await journals.list();
  for (const earlier of known.filter((each) => each.uuid === uuid || each.guest === guest)) {
    const last = await lastOf(earlier, journals);
    if (last?.kind === "handed-off" || last?.kind === "released") {
      throw new ProblemError(
        `Migration ${last.migrationId} handed guest ${earlier.guest} over, and ${last.peer} has not said ` +
          "what became of it: settle that first (vmferry resolve), for it may run there.",
        { code: "guest-in-doubt" },
      );
    }
    // It has left, or never did; and it was brought here by whoever attaches it.
    if (earlier.uuid === uuid) await journals.remove(earlier);
  }
  return Math.floor(clock.date().getTime() / 1000);
}

/** One that is open is a hand-over's that is not settled. */
async function lastOf(
  earlier: { readonly guest: string; readonly uuid: string },
  journals: TakeOverOptions["journals"],
): Promise<JournalRecordOf<"source"> | null> {
  try {
    const journal = await journals.take(earlier);
    await journal.close();
    return journal.last;
  } catch (cause) {
    throw new ProblemError(
      `Nobody can tell what became of guest ${earlier.guest}: ${messageOf(cause)}. Settle its ` +
        "migration first (vmferry list, vmferry resolve), for it may run elsewhere.",
      { code: "guest-in-doubt" },
      { cause },
    );
  }
}

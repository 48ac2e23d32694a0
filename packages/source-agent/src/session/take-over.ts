/**
 * A guest that comes from outside: whatever earlier lives of it were here is over, unless its journal
 * says that nobody knows whose it is.
 */
import { ProblemError, type Journal, type JournalShelf } from "@vmferry/agent";
import { messageOf, type Clock } from "@vmferry/core";

export interface TakeOverOptions {
  readonly journals: Pick<JournalShelf<"source">, "list" | "take">;
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
    const journal = await open(earlier, journals);
    const { last } = journal;
    const isOpen = last?.kind === "handed-off" || last?.kind === "released";
    // It has left, or never did; and it was brought here by whoever attaches it.
    await (earlier.uuid === uuid && !isOpen ? journal.remove() : journal.close());
    if (isOpen) {
      throw new ProblemError(
        `Migration ${last.migrationId} handed guest ${earlier.guest} over, and ${last.peer} has not said ` +
          "what became of it: settle that first (vmferry resolve), for it may run there.",
        { code: "guest-in-doubt" },
      );
    }
  }
  return Math.floor(clock.date().getTime() / 1000);
}

/** One that is in use is a hand-over's that is not settled. */
async function open(
  earlier: { readonly guest: string; readonly uuid: string },
  journals: TakeOverOptions["journals"],
): Promise<Journal<"source">> {
  try {
    return await journals.take(earlier);
  } catch (cause) {
    throw new ProblemError(
      `Nobody can tell what became of guest ${earlier.guest}: ${messageOf(cause)}. Settle its ` +
        "migration first (vmferry list, vmferry resolve), for it may run elsewhere.",
      { code: "guest-in-doubt" },
      { cause },
    );
  }
}

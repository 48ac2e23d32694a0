import type { JournalShelf, Logger } from "@vmferry/agent";

/** Of a hand-over that is not over, whatever its QEMU does. */
export const OPEN_RECORDS: readonly string[] = ["begin", "handed-off", "released"];

/**
 * The migrations that the journals have not settled: what is kept here of one may be all there is of
 * its guest, however old. Null where that cannot be told of every journal. Before any is taken.
 */
export async function openHandOvers(
  journals: JournalShelf<"source">,
  logger: Logger,
): Promise<ReadonlySet<string> | null> {
  const open = new Set<string>();
  let areKnown = true;
  for (const identity of await journals.list()) {
    try {
      const journal = await journals.take(identity);
      const { last } = journal;
      await journal.close();
      if (last !== null && OPEN_RECORDS.includes(last.kind)) open.add(last.migrationId);
    } catch (error) {
      const { guest } = identity;
      logger.warn({ guest, err: error }, "what is left of old hand-overs stays: look at a journal");
      areKnown = false;
    }
  }
  return areKnown ? open : null;
}

import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { followMigration } from "../follow/follow-migration.ts";
import { followView } from "../follow/follow-view.ts";
import type { CommandContext } from "../command-context.ts";
import { endOfMigration } from "./end-of-migration.ts";

export interface WatchOptions {
  readonly json?: boolean;
  /** Null: as long as it takes. */
  readonly timeoutMs: number | null;
}

/** Follows a migration that somebody has started. Nothing that happens here changes it. */
export async function watch(
  context: CommandContext,
  id: string,
  { json = false, timeoutMs }: WatchOptions,
): Promise<ExitCode> {
  const { api } = context;
  const view = followView(context, json);
  const interrupting = new AbortController();
  const stopListening = context.onInterrupt(() => {
    interrupting.abort();
  });
  const late = timeoutMs === null ? new AbortController().signal : AbortSignal.timeout(timeoutMs);
  const signal = AbortSignal.any([interrupting.signal, late]);
  try {
    const migration = await followMigration({ api, id, signal, ...view });
    return await endOfMigration({ api, view }, migration);
  } catch (error) {
    if (!signal.aborted) throw error;
    view.close();
    view.onNotice("No longer followed; the migration goes on.");
    return interrupting.signal.aborted ? EXIT_CODE.interrupted : EXIT_CODE.waitTimedOut;
  } finally {
    stopListening();
    view.close();
  }
}

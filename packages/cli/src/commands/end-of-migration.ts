import type { AgentApi } from "../api/agent-api.ts";
import type { Migration } from "../api/migration.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import type { FollowView } from "../follow/follow-view.ts";

/** Shows how a migration ended, and what that means to scripts. */
export async function endOfMigration(
  { api, view }: { readonly api: AgentApi; readonly view: FollowView },
  migration: Migration,
): Promise<ExitCode> {
  view.onEnded(migration);
  if (migration.phase === "completed") return EXIT_CODE.ok;
  await tellWhereabouts({ api, view }, migration);
  return migration.phase === "cancelled" ? EXIT_CODE.cancelled : EXIT_CODE.failed;
}

/** After a migration that did not happen, the first question is what the guest does now. */
async function tellWhereabouts(
  { api, view }: { readonly api: AgentApi; readonly view: FollowView },
  { guest, role }: Migration,
): Promise<void> {
  if (role !== "source") return;
  try {
    const { state } = await api.guest(guest);
    view.onNotice(`${guest} is ${state} at the source.`);
  } catch {
    // The end of the migration has been told; that the agent went away since is another matter.
  }
}

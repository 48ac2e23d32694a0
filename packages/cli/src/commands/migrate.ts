import type { Migration, MigrationRequest } from "../api/migration.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { followView } from "../follow/follow-view.ts";
import type { CommandContext } from "../command-context.ts";
import { FollowedMigration } from "./followed-migration.ts";
import { refusalOf } from "./refusal.ts";

export interface MigrateOptions {
  readonly detach?: boolean;
  readonly json?: boolean;
}

export async function migrate(
  context: CommandContext,
  request: MigrationRequest,
  { detach = false, json = false }: MigrateOptions,
): Promise<ExitCode> {
  const start = async (signal?: AbortSignal): Promise<Migration> => {
    try {
      return await context.api.startMigration(request, signal);
    } catch (error) {
      throw refusalOf(error);
    }
  };
  if (!detach) return new FollowedMigration(context, followView(context, json)).run(start);
  const migration = await start();
  const text = json ? JSON.stringify(migration) : startedText(migration);
  context.stdout.write(`${text}\n`);
  return EXIT_CODE.ok;
}

function startedText({ id, guest, destination }: Migration): string {
  return `Migrating ${guest} to ${destination}: ${id}\nFollow it with: vmferry watch ${id}`;
}

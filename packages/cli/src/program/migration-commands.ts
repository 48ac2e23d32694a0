import { Argument } from "commander";
import {
  cancelMigration,
  listMigrations,
  resolveMigration,
  showMigration,
  switchToPostCopy,
  type ResolveOptions,
} from "../commands/migrations.ts";
import { count } from "./argument-parsers.ts";
import { PRINT_ANSWER, type Commands, type JsonFlag } from "./commands.ts";

export function addMigrationCommands(commands: Commands): void {
  addList(commands);
  const commandsById = [
    ["show", "show one migration", showMigration],
    ["cancel", "ask to cancel a migration; the guest goes on where it was", cancelMigration],
    ["post-copy", "let a migration switch to post-copy now", switchToPostCopy],
  ] as const;
  for (const [name, description, work] of commandsById) {
    commands.program
      .command(name)
      .description(description)
      .argument("<ID>", "of a migration: see vmferry list")
      .option("--json", PRINT_ANSWER)
      .action((id: string, options: JsonFlag) =>
        commands.run((context) => work(context, id, options)),
      );
  }
  addResolve(commands);
}

function addList({ program, run }: Commands): void {
  program
    .command("list")
    .description("list migrations, the newest first")
    .option("--limit <COUNT>", "how many at most", count, 20)
    .option("--json", PRINT_ANSWER)
    .action((options: JsonFlag & { readonly limit: number }) =>
      run((context) => listMigrations(context, options)),
    );
}

function addResolve({ program, run }: Commands): void {
  program
    .command("resolve")
    .description("say whose the guest of a migration in doubt is, at the agent of either side")
    .argument("<ID>", "of a migration: see vmferry list")
    .addArgument(new Argument("<OWNER>", "where it runs from now on").choices(["source", "dest"]))
    .option("--fenced", "the guest has been seen to be unable to run at the other side", false)
    .option("--json", PRINT_ANSWER)
    .action((id: string, owner: string, options: ResolveOptions) =>
      run((context) => resolveMigration(context, [id, owner], options)),
    );
}

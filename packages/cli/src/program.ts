import { Command, CommanderError } from "commander";
import manifest from "../package.json" with { type: "json" };
import type { CommandContext, LocalContext } from "./command-context.ts";
import { EXIT_CODE, type ExitCode } from "./exit-code.ts";
import type { Commands, ProgramFlags } from "./program/commands.ts";
import { addGuestCommands } from "./program/guest-commands.ts";
import { addLocalCommands } from "./program/local-commands.ts";
import { addMigrate, addPreflight } from "./program/migrate-commands.ts";
import { addMigrationCommands } from "./program/migration-commands.ts";
import { addWatch } from "./program/watch-command.ts";

const API_DEFAULT = "http://127.0.0.1:7070";
const EXIT_HELP = `
Exit status:
  0 done, 1 failed, 2 wrong usage, 3 refused before anything was started, 4 no agent answers,
  5 cancelled, 124 the time given to watch is over, 130 interrupted, 141 nobody reads the output

Environment:
  VMFERRY_API                 what --api is without it
  VMFERRY_API_TOKEN           the agent's API token
  VMFERRY_API_TOKEN_FILE      what --api-token-file is without it
  NODE_EXTRA_CA_CERTS         a file with the certificate authority of an agent at https://

Examples:
  vmferry guest list
  vmferry preflight web1 host-b && vmferry migrate web1 host-b --downtime 100ms
  vmferry --api http://host-b:7080 list
`;

export interface ProgramOptions {
  readonly local: LocalContext;
  readonly contextFor: (flags: ProgramFlags) => CommandContext;
}

/** Reads the command line and runs the command that it names. */
export async function runProgram(
  argv: readonly string[],
  { local, contextFor }: ProgramOptions,
): Promise<ExitCode> {
  const program = newProgram(local.environment["VMFERRY_API"] || API_DEFAULT);
  let exitCode: ExitCode = EXIT_CODE.ok;
  addCommands({
    program,
    environment: local.environment,
    flags: () => program.opts<ProgramFlags>(),
    run: async (work) => {
      exitCode = await work(contextFor(program.opts<ProgramFlags>()));
    },
    runHere: async (work) => {
      exitCode = await work(local);
    },
  });
  try {
    await program.parseAsync(argv, { from: "user" });
  } catch (error) {
    // Commander has said what is wrong, or has shown the help that was asked for.
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? EXIT_CODE.ok : EXIT_CODE.usage;
  }
  return exitCode;
}

function addCommands(commands: Commands): void {
  addMigrate(commands);
  addPreflight(commands);
  addWatch(commands);
  addMigrationCommands(commands);
  addGuestCommands(commands);
  addLocalCommands(commands);
  nameInErrors(commands.program, commands.program.name());
}

function newProgram(apiDefault: string): Command {
  return new Command("vmferry")
    .description("Moves running virtual machines between hosts; talks to a vmferry agent")
    .version(manifest.version)
    .option("--api <URL>", "the agent's API", apiDefault)
    .option("--api-token-file <FILE>", "a file that holds the agent's API token")
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => {
        write(text.replace(/^error: /, "vmferry: "));
      },
    })
    .addHelpText("after", EXIT_HELP);
}

/** Each command's errors end with where its own help is. */
function nameInErrors(command: Command, path: string): void {
  command.showHelpAfterError(`See ${path} --help.`);
  for (const child of command.commands) nameInErrors(child, `${path} ${child.name()}`);
}

import { Argument, Command, CommanderError, InvalidArgumentError, Option } from "commander";
import manifest from "../package.json" with { type: "json" };
import type { MigrationRequest } from "./api/migration.ts";
import { CliError, usageError } from "./cli-error.ts";
import type { CommandContext } from "./command-context.ts";
import { listGuests, showGuest, startGuest, stopGuest } from "./commands/guests.ts";
import { migrate } from "./commands/migrate.ts";
import {
  cancelMigration,
  listMigrations,
  resolveMigration,
  showMigration,
  type ResolveOptions,
} from "./commands/migrations.ts";
import { watch } from "./commands/watch.ts";
import { EXIT_CODE, type ExitCode } from "./exit-code.ts";
import { parseDurationMs } from "./units/parse-duration.ts";
import { parseBytesPerSecond } from "./units/parse-rate.ts";

const PAGE_MAX = 1000;
const EXIT_HELP = `
Exit status:
  0 done, 1 failed, 2 wrong usage, 3 refused before anything was started, 4 no agent answers,
  5 cancelled, 124 the time given to watch is over, 130 interrupted

Environment:
  VMFERRY_API                 what --api is without it
  VMFERRY_API_TOKEN           the agent's API token
  VMFERRY_API_TOKEN_FILE      a file that holds it
`;

export interface ProgramOptions {
  readonly apiDefault: string;
  readonly contextFor: (api: string) => CommandContext;
}

/** Reads the command line and runs the command that it names. */
export async function runProgram(
  argv: readonly string[],
  { apiDefault, contextFor }: ProgramOptions,
): Promise<ExitCode> {
  const program = newProgram(apiDefault);
  let exitCode: ExitCode = EXIT_CODE.ok;
  const commands: Commands = {
    program,
    run: async (work) => {
      const { api } = program.opts<{ api: string }>();
      exitCode = await work(contextFor(api));
    },
  };
  addMigrate(commands);
  addWatch(commands);
  addMigrationCommands(commands);
  addResolve(commands);
  addGuestCommands(commands);
  try {
    await program.parseAsync(argv, { from: "user" });
  } catch (error) {
    // Commander has said what is wrong, or has shown the help that was asked for.
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? EXIT_CODE.ok : EXIT_CODE.usage;
  }
  return exitCode;
}

interface Commands {
  readonly program: Command;
  /** What a command's action calls. */
  readonly run: (work: (context: CommandContext) => Promise<ExitCode>) => Promise<void>;
}

interface JsonOption {
  readonly json?: boolean;
}

function newProgram(apiDefault: string): Command {
  return new Command("vmferry")
    .description("Moves running virtual machines between hosts; talks to a vmferry agent")
    .version(manifest.version)
    .option("--api <URL>", "the agent's API", apiDefault)
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => {
        write(text.replace(/^error: /, "vmferry: "));
      },
    })
    .showHelpAfterError("See vmferry --help.")
    .addHelpText("after", EXIT_HELP);
}

function addMigrate({ program, run }: Commands): void {
  interface MigrateFlags extends JsonOption {
    readonly downtime?: number;
    readonly bandwidth?: number;
    readonly onStall?: string;
    readonly detach?: boolean;
  }
  program
    .command("migrate")
    .description("migrate a guest and follow it; Ctrl-C asks to cancel, a second one detaches")
    .argument("<GUEST>", "a guest of the agent")
    .argument("<DEST>", "the name of one of its peers")
    .option("--downtime <DURATION>", "how long the guest may stand still, such as 300ms", duration)
    .option("--bandwidth <RATE>", "limit such as 100MB/s, 1Gbit/s or bytes a second", rate)
    .addOption(
      new Option("--on-stall <WHAT>", "what to do when it does not converge").choices([
        "post-copy",
        "throttle",
        "cancel",
        "stun",
      ]),
    )
    .option("--detach", "do not wait for its end")
    .option("--json", "print the events and then the migration, a line of JSON each")
    .action((guest: string, destination: string, flags: MigrateFlags) =>
      run((context) => migrate(context, requestOf(guest, destination, flags), flags)),
    );
}

/** Only what was asked for: the defaults are the agent's. */
function requestOf(
  guest: string,
  destination: string,
  flags: { readonly downtime?: number; readonly bandwidth?: number; readonly onStall?: string },
): MigrationRequest {
  const { downtime, bandwidth, onStall } = flags;
  return {
    guest,
    destination,
    ...(onStall === undefined ? {} : { onStall }),
    limits: {
      ...(downtime === undefined ? {} : { downtimeMsMax: downtime }),
      ...(bandwidth === undefined ? {} : { bandwidthBytesPerSecond: bandwidth }),
    },
  };
}

function addWatch({ program, run }: Commands): void {
  program
    .command("watch")
    .description("follow a migration to its end; Ctrl-C only ends the following")
    .argument("<ID>")
    .option("--timeout <DURATION>", "leave it after that time, with exit status 124", duration)
    .option("--json", "print the events and then the migration, a line of JSON each")
    .action((id: string, { timeout, ...rest }: JsonOption & { readonly timeout?: number }) =>
      run((context) => watch(context, id, { ...rest, timeoutMs: timeout ?? null })),
    );
}

function addMigrationCommands({ program, run }: Commands): void {
  program
    .command("list")
    .description("list migrations, the newest first")
    .option("--limit <COUNT>", "how many at most", count, 20)
    .option("--json", "print the agent's answer")
    .action((options: JsonOption & { readonly limit: number }) =>
      run((context) => listMigrations(context, options)),
    );
  program
    .command("show")
    .description("show one migration")
    .argument("<ID>")
    .option("--json", "print the agent's answer")
    .action((id: string, options: JsonOption) =>
      run((context) => showMigration(context, id, options)),
    );
  program
    .command("cancel")
    .description("ask to cancel a migration; the guest goes on where it was")
    .argument("<ID>")
    .option("--json", "print the agent's answer")
    .action((id: string, options: JsonOption) =>
      run((context) => cancelMigration(context, id, options)),
    );
}

function addResolve({ program, run }: Commands): void {
  program
    .command("resolve")
    .description("say whose the guest of a migration in doubt is, at the agent of either side")
    .argument("<ID>")
    .addArgument(new Argument("<OWNER>", "where it runs from now on").choices(["source", "dest"]))
    .option("--fenced", "the guest has been seen to be unable to run at the other side", false)
    .option("--json", "print the agent's answer")
    .action((id: string, owner: string, options: ResolveOptions) =>
      run((context) => resolveMigration(context, [id, owner], options)),
    );
}

function addGuestCommands({ program, run }: Commands): void {
  const guest = program.command("guest").description("the agent's guests");
  guest
    .command("list")
    .description("list guests")
    .option("--json", "print the agent's answer")
    .action((options: JsonOption) => run((context) => listGuests(context, options)));
  const commands = [
    ["show", "NAME", "show one guest", showGuest],
    ["start", "FILE", "start the guest that FILE defines in JSON; - is the input", startGuest],
    ["stop", "NAME", "power a guest off", stopGuest],
  ] as const;
  for (const [name, argument, description, work] of commands) {
    guest
      .command(name)
      .description(description)
      .argument(`<${argument}>`)
      .option("--json", "print the agent's answer")
      .action((value: string, options: JsonOption) =>
        run((context) => work(context, value, options)),
      );
  }
}

/** Commander puts the flag's name before the message of an InvalidArgumentError, and only of one. */
function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof CliError) {
        throw new InvalidArgumentError(error.message);
      }
      throw error;
    }
  };
}

const duration = argument(parseDurationMs);
const rate = argument(parseBytesPerSecond);
const count = argument((text) => {
  const number = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= PAGE_MAX) return number;
  throw usageError(`"${text}" is no number from 1 to ${PAGE_MAX}`);
});

import type { Command } from "commander";
import type { Environment } from "../api/api-token.ts";
import type { CommandContext, LocalContext } from "../command-context.ts";
import type { ExitCode } from "../exit-code.ts";

/** The flags that every command has. */
export interface ProgramFlags {
  readonly api: string;
  readonly apiTokenFile?: string;
}

/** What those who add commands get. */
export interface Commands {
  readonly program: Command;
  /** Where flags have the defaults from that a variable sets. */
  readonly environment: Environment;
  /** Once the command line has been read. */
  readonly flags: () => ProgramFlags;
  /** What the action of a command that asks an agent calls. */
  readonly run: (work: (context: CommandContext) => Promise<ExitCode>) => Promise<void>;
  /** The same for a command that does without. */
  readonly runHere: (work: (context: LocalContext) => Promise<ExitCode>) => Promise<void>;
}

export interface JsonFlag {
  readonly json?: boolean;
}

export const PRINT_ANSWER = "print the agent's answer as a line of JSON";

/** Composition root of the command: the only place that knows its process. */
import { readApiToken } from "./api/api-token.ts";
import { AgentApi } from "./api/agent-api.ts";
import { parseApiUrl } from "./api/api-url.ts";
import { CliError, messageOf } from "./cli-error.ts";
import type { CommandContext, LocalContext } from "./command-context.ts";
import { EXIT_CODE, type ExitCode } from "./exit-code.ts";
import { runProgram } from "./program.ts";
import type { ProgramFlags } from "./program/commands.ts";
import { printable } from "./render/printable.ts";

const { stdout, stderr, env } = process;
const LOCAL: LocalContext = { stdout, stderr, environment: env };
/** How long what is still under way may keep the process. */
const LEAVE_MS_MAX = 1000;

/** Resolves when the command has done its work; the process then ends with its exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  stdout.on("error", leaveWhenPipeCloses);
  process.exitCode = await run(argv);
  // Everything has been written. A file system that does not answer would keep the process for ever.
  setTimeout(() => process.exit(), LEAVE_MS_MAX).unref();
}

async function run(argv: readonly string[]): Promise<ExitCode> {
  try {
    return await runProgram(argv, { local: LOCAL, contextFor });
  } catch (error) {
    // What nobody expected is a bug, and its stack is what a report of it needs.
    const text =
      error instanceof CliError || !(error instanceof Error) ? messageOf(error) : error.stack;
    stderr.write(`vmferry: ${printable(text ?? messageOf(error))}\n`);
    return error instanceof CliError ? error.detail.exitCode : EXIT_CODE.failed;
  }
}

function contextFor({ api, apiTokenFile }: ProgramFlags): CommandContext {
  return {
    ...LOCAL,
    api: new AgentApi({ url: parseApiUrl(api), token: readApiToken(env, apiTokenFile) }),
    onInterrupt: (listener) => {
      process.on("SIGINT", listener);
      return () => process.off("SIGINT", listener);
    },
  };
}

/** `vmferry list | head -1`: who closed the pipe has seen enough. */
function leaveWhenPipeCloses(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(EXIT_CODE.pipeClosed);
  throw error;
}

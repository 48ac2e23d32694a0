import type { Command } from "commander";
import type { LocalContext } from "../command-context.ts";
import { commandLineTree } from "../completion/command-line-tree.ts";
import { completionScript, type Shell } from "../completion/completion-script.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";

export function printCompletion(
  { stdout }: LocalContext,
  program: Command,
  shell: Shell,
): ExitCode {
  stdout.write(completionScript(shell, commandLineTree(program)));
  return EXIT_CODE.ok;
}

import { execFile } from "node:child_process";
import { AgentError } from "@vmferry/core";

const COMMAND_MS_MAX = 20_000;

export class CommandError extends AgentError<{
  readonly code: "command-failed";
  readonly command: string;
}> {}

/** Resolves with what it wrote to stdout; rejects with what it wrote to stderr. */
export function runCommand(program: string, ...words: readonly string[]): Promise<string> {
  const options = { timeout: COMMAND_MS_MAX, encoding: "utf8" } as const;
  return new Promise((resolve, reject) => {
    execFile(program, words, options, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      const command = [program, ...words].join(" ");
      const reason = stderr.trim() || error.message;
      const detail = { code: "command-failed", command } as const;
      reject(new CommandError(`${command}: ${reason}`, detail, { cause: error }));
    });
  });
}

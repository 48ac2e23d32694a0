// For tests: the command as its users have it.

import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";

const PROGRAM = fileURLToPath(new URL("../bin/vmferry.js", import.meta.url));

export interface RunningCommand {
  readonly interrupt: () => void;
  /** Resolves when its standard error holds the text. */
  readonly says: (text: string) => Promise<void>;
  readonly done: Promise<CommandOutcome>;
}

export interface CommandOutcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Surroundings {
  readonly api: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** Nobody reads what it writes. */
  readonly deaf?: boolean;
}

/** Starts the real command in a process of its own. */
export function startCommand(words: readonly string[], surroundings: Surroundings): RunningCommand {
  const { api, environment = {}, input = "", deaf = false } = surroundings;
  const child = spawn(process.execPath, [PROGRAM, ...words], {
    env: { PATH: process.env["PATH"] ?? "", VMFERRY_API: api, ...environment },
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin.end(input);
  if (deaf) child.stdout.destroy();
  let heard = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (piece: Buffer) => {
      heard += piece.toString();
    });
  }
  const { promise: exited, resolve } = Promise.withResolvers<number | null>();
  child.once("exit", resolve);
  const outputs = Promise.all([deaf ? "" : text(child.stdout), text(child.stderr)]);
  return {
    interrupt: () => child.kill("SIGINT"),
    says: async (wanted) => {
      await expect.poll(() => heard, { timeout: 10_000 }).toContain(wanted);
    },
    done: (async () => {
      const [stdout, stderr] = await outputs;
      return { exitCode: await exited, stdout, stderr };
    })(),
  };
}

export function runCommand(
  words: readonly string[],
  surroundings: Surroundings,
): Promise<CommandOutcome> {
  return startCommand(words, surroundings).done;
}

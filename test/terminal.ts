// A command in a pseudo-terminal of its own, as a person has it: what is written can be seen as the
// screen shows it, and keys can be pressed. `script` of bsdutils makes the terminal, which every
// Debian has.

import { spawn, type ChildProcess } from "node:child_process";
import { on } from "node:events";

export const CTRL_C = "\x03";
const SAYS_MS_MAX = 60_000;

export interface TerminalOptions {
  readonly columns: number;
  readonly environment?: Readonly<Record<string, string>>;
}

export class Terminal {
  /** Everything that came, control characters included. */
  output = "";
  readonly done: Promise<number | null>;
  readonly #child: ChildProcess;

  /** @param words of the command and its arguments */
  constructor(words: readonly string[], { columns, environment = {} }: TerminalOptions) {
    const command = `stty cols ${columns} rows 24; exec ${words.map(quoted).join(" ")}`;
    this.#child = spawn("script", ["-qefc", command, "/dev/null"], {
      env: { PATH: process.env["PATH"] ?? "", TERM: "xterm", SHELL: "/bin/sh", ...environment },
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.output += text;
    });
    const { promise, resolve } = Promise.withResolvers<number | null>();
    this.#child.once("close", resolve);
    this.done = promise;
  }

  press(keys: string): void {
    this.#child.stdin?.write(keys);
  }

  /** Resolves when the text has come; rejects when it does not, or when the command ends before. */
  async says(wanted: string | RegExp): Promise<void> {
    const hasCome = (): boolean =>
      typeof wanted === "string" ? this.output.includes(wanted) : wanted.test(this.output);
    const failed = (why: string): Error =>
      new Error(`${why} without ${String(wanted)}: ${JSON.stringify(this.output)}`);
    if (hasCome()) return;
    const { stdout } = this.#child;
    if (stdout === null) throw failed("no output");
    const signal = AbortSignal.timeout(SAYS_MS_MAX);
    const pieces = on(stdout, "data", { signal, close: ["close"] });
    try {
      // The constructor's listener has taken the piece by then.
      while ((await pieces.next()).done !== true) if (hasCome()) return;
    } catch (error) {
      throw signal.aborted ? failed(`${SAYS_MS_MAX} ms`) : error;
    } finally {
      await pieces.return?.();
    }
    throw failed("the end came");
  }

  /** Ends it where it has not ended. */
  close(): void {
    this.#child.kill("SIGKILL");
  }
}

/**
 * The lines that a screen shows after `output`. Those that are too long for a row are put together
 * again; blank ones are left out.
 */
export function screenOf(output: string, columns: number): string[] {
  const rows: Row[] = [{ text: "", goesOn: false }];
  let column = 0;
  for (const [token] of output.matchAll(/\x1b\[[0-9;?]*[A-Za-z]|[\s\S]/g)) {
    const row = rows.at(-1) ?? { text: "", goesOn: false };
    if (token === "\r") column = 0;
    else if (token === "\n") rows.push({ text: " ".repeat(column), goesOn: false });
    else if (token === "\x1b[K") row.text = row.text.slice(0, column);
    else if (!token.startsWith("\x1b")) {
      let current = row;
      if (column === columns) {
        row.goesOn = true;
        current = { text: "", goesOn: false };
        rows.push(current);
        column = 0;
      }
      const { text } = current;
      current.text = text.slice(0, column).padEnd(column) + token + text.slice(column + 1);
      column += 1;
    }
  }
  const shown = rows.map(({ text, goesOn }) => (goesOn ? text : `${text.trimEnd()}\n`)).join("");
  return shown.split("\n").filter((line) => line !== "");
}

interface Row {
  text: string;
  /** In the next row, as the line was too long. */
  goesOn: boolean;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

// A real bash in a terminal, where somebody presses Tab.

import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Terminal } from "../terminal.ts";

const PROGRAM = fileURLToPath(new URL("../../packages/cli/bin/vmferry.js", import.meta.url));
const TAB = "\t";
/** Readline's insert-completions: all of them, in place of the word. */
const INSERT_ALL = "\x1b*";

let directory = "";
let terminal: Terminal;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-completion-"));
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM, "completion", "bash"]);
  // The command only shows its words, so that Enter tells what stands on the line.
  const rc = [
    stdout,
    'vmferry() { printf "<%s>" "$@"; echo; }',
    "PS1='ready> '",
    `cd ${directory}`,
  ];
  await writeFile(join(directory, "rc"), rc.join("\n"));
  await writeFile(join(directory, "guest one.json"), "{}");
  const words = ["bash", "--noprofile", "--rcfile", join(directory, "rc"), "-i"];
  terminal = new Terminal(words, { columns: 500 });
  await terminal.says("ready> ");
});

afterAll(async () => {
  terminal.close();
  await rm(directory, { recursive: true });
});

/** The words of the command line after the key was pressed behind it. */
async function wordsAfter(line: string, key: string): Promise<string[]> {
  terminal.output = "";
  terminal.press(`${line}${key}\r`);
  await terminal.says(/\n<?[^\n]*>\r\n[^\n]*ready> $/);
  const [, shown = ""] = /\n(?:\x1b\[[0-9;?]*[a-z])*\r?(<[^\n]*>)\r\n/.exec(terminal.output) ?? [];
  return shown.slice(1, -1).split("><");
}

test.each([
  ["vmferry mig", ["migrate"]],
  ["vmferry guest st", ["guest", "st"]],
  ["vmferry guest sta", ["guest", "start"]],
  ["vmferry --api list gue", ["--api", "list", "guest"]],
  ["vmferry migrate --ban", ["migrate", "--bandwidth"]],
  ["vmferry migrate --on-stall thr", ["migrate", "--on-stall", "throttle"]],
  ["vmferry migrate --on-stall=thr", ["migrate", "--on-stall=throttle"]],
  ["vmferry resolve m1 so", ["resolve", "m1", "source"]],
  ["vmferry resolve --api=x --json m1 so", ["resolve", "--api=x", "--json", "m1", "source"]],
  ["vmferry guest start gu", ["guest", "start", "guest one.json"]],
  ["vmferry list --ap", ["list", "--api"]],
])("%s and Tab is %j", async (line, words) => {
  expect(await wordsAfter(line, TAB)).toEqual(words);
});

test.each([
  ["vmferry guest ", ["guest", "attach", "help", "list", "show", "start", "stop"]],
  ["vmferry completion ", ["completion", "bash", "fish", "zsh"]],
  ["vmferry resolve m1 ", ["resolve", "m1", "dest", "source"]],
  ["vmferry watch --", ["watch", "--api", "--api-token-file", "--help", "--json", "--timeout"]],
])("%s can go on as %j", async (line, words) => {
  expect(await wordsAfter(line, INSERT_ALL)).toEqual(words);
});

test("every command of the help is offered", async () => {
  const help = await promisify(execFile)(process.execPath, [PROGRAM, "--help"]);
  const commands = help.stdout.split("Commands:\n")[1]?.split("\n\n")[0] ?? "";
  const named = [...commands.matchAll(/^ {2}([a-z-]+) /gm)].map(([, name]) => name);
  const offered = await wordsAfter("vmferry ", INSERT_ALL);
  expect(offered).toContain("migrate");
  expect(named.filter((name) => !offered.includes(name ?? ""))).toEqual([]);
});

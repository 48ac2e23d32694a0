// Whether this user's QEMU could receive a guest by post-copy is asked of QEMU itself: what it needs
// of userfaultfd depends on its version, on the kernel and on capabilities. It starts without a
// machine, and ends before anything can arrive.

import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { fileTrouble } from "./file-trouble.ts";
import { passes, skips, warns, type Finding } from "./finding.ts";
import { runProgramHere } from "./run-program.ts";

const DEVICE = "/dev/userfaultfd";
const SYSCTL = "/proc/sys/vm/unprivileged_userfaultfd";
const QEMU_WORDS = [
  ...["-machine", "none", "-accel", "tcg", "-display", "none", "-nodefaults", "-S"],
  ...["-incoming", "defer", "-qmp", "stdio"],
];
const CAPABILITY = { capability: "postcopy-ram", state: true };
const COMMANDS = [
  { execute: "qmp_capabilities" },
  { execute: "migrate-set-capabilities", arguments: { capabilities: [CAPABILITY] }, id: "asked" },
  { execute: "quit" },
];
const HINT =
  "It is needed for post-copy only. Let the agent's user open /dev/userfaultfd (chgrp and chmod, by a udev rule), or set vm.unprivileged_userfaultfd to 1.";

interface QmpAnswer {
  readonly id?: string;
  readonly error?: { readonly desc: string };
}

export async function checkPostCopy(qemu: string): Promise<Finding> {
  let output: string;
  try {
    const input = COMMANDS.map((command) => `${JSON.stringify(command)}\n`).join("");
    output = await runProgramHere(qemu, QEMU_WORDS, input);
  } catch (error) {
    return skips(`QEMU could not be asked: ${fileTrouble(qemu, error)}`);
  }
  const answer = answersIn(output).find(({ id }) => id === "asked");
  if (answer === undefined) return skips("QEMU did not answer");
  if (answer.error === undefined)
    return passes(`QEMU can receive a guest by post-copy (${await accessText()})`);
  return warns(`${answer.error.desc.trim()} (${await accessText()})`, HINT);
}

function answersIn(output: string): QmpAnswer[] {
  const lines = output.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line) as QmpAnswer);
}

async function accessText(): Promise<string> {
  const opens = await access(DEVICE, constants.R_OK | constants.W_OK).then(
    () => "may be opened",
    (error: unknown) =>
      (error as NodeJS.ErrnoException).code === "ENOENT" ? "is not there" : "may not be opened",
  );
  const setting = await readFile(SYSCTL, "utf8").catch(() => "not there");
  return `${DEVICE} ${opens}, vm.unprivileged_userfaultfd is ${setting.trim()}`;
}

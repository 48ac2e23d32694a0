// What the kernel says about processes, independently of what an agent believes.

import { readdirSync, readFileSync } from "node:fs";

/** Pids of QEMU processes whose command line mentions `directory`, zombies not counted. */
export function qemusUnder(directory: string): readonly number[] {
  return processesUnder(directory, /^[^\0]*qemu-system/);
}

/** Pids of the processes that hold sockets for the agent whose state directory this is. */
export function socketHoldersUnder(stateDirectory: string): readonly number[] {
  return processesUnder(stateDirectory, /socket-holder-main/);
}

function processesUnder(directory: string, pattern: RegExp): readonly number[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      // A zombie has no command line.
      const commandLine = readIfThere(`/proc/${entry}/cmdline`);
      return pattern.test(commandLine) && commandLine.includes(`${directory}/`);
    })
    .map(Number);
}

/** The most memory that the process ever had resident. */
export function peakRssBytes(pid: number): number {
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readIfThere(`/proc/${pid}/status`));
  if (match === null) throw new Error(`process ${pid} is not there`);
  return Number(match[1]) * 1024;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it ended between the two looks
  }
}

import { readFileSync } from "node:fs";

/** The part of /proc/<pid>/stat that tells one process from a later one with the same number. */
export interface ProcStat {
  /** One letter; `Z` for a process that has ended and that its parent has not looked at. */
  readonly state: string;
  /** Clock ticks from the start of the host to the start of the process. */
  readonly startTicks: number;
}

const STATE_FIELD = 3;
const START_TIME_FIELD = 22;

export function parseProcStat(text: string): ProcStat | null {
  // The second field is the program's name in brackets, and may hold spaces and brackets itself.
  const nameEnd = text.lastIndexOf(")");
  if (nameEnd === -1) return null;
  const fields = text.slice(nameEnd + 2).split(" ");
  const state = fields[0];
  const startTicks = Number(fields[START_TIME_FIELD - STATE_FIELD]);
  if (state === undefined || state === "" || !Number.isSafeInteger(startTicks)) return null;
  return { state, startTicks };
}

/**
 * Null when there is no such process. It does not wait, so that what follows in the same turn of
 * the event loop follows as closely as it can.
 */
export function readProcStat(pid: number): ProcStat | null {
  try {
    return parseProcStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    // ENOENT, or ESRCH when it ends while it is read.
    return null;
  }
}

/** The arguments of a process; empty when it has ended. */
export function readProcArguments(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

/** Whether the process that began at `startTicks` still runs under that number. */
export function isSameProcess(pid: number, startTicks: number): boolean {
  const stat = readProcStat(pid);
  return stat !== null && stat.startTicks === startTicks && !"ZX".includes(stat.state);
}

import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import type { AgentProcessId } from "./move.ts";

export interface AgentUsage {
  readonly role: "source" | "dest";
  /** Of all its threads. */
  readonly cpuSeconds: number;
  /** The part of it that the kernel used: copying to and from sockets, above all. */
  readonly systemSeconds: number;
  /** The most that was resident at any time of its life. */
  readonly residentBytesMax: number;
}

let ticksPerSecond: number | null = null;

export function readUsage(agents: readonly AgentProcessId[]): Promise<readonly AgentUsage[]> {
  return Promise.all(agents.map(readOne));
}

/** What each used since `before`, which has the same agents in the same order. */
export function usageSince(
  before: readonly AgentUsage[],
  now: readonly AgentUsage[],
): readonly AgentUsage[] {
  return now.map((usage, index) => ({
    ...usage,
    cpuSeconds: usage.cpuSeconds - (before[index]?.cpuSeconds ?? 0),
    systemSeconds: usage.systemSeconds - (before[index]?.systemSeconds ?? 0),
  }));
}

async function readOne({ role, pid }: AgentProcessId): Promise<AgentUsage> {
  ticksPerSecond ??= Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The program's name comes second, and may hold anything but its closing bracket.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [userTicks, systemTicks] = [Number(fields[11]), Number(fields[12])];
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const residentKib = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]);
  return {
    role,
    cpuSeconds: (userTicks + systemTicks) / ticksPerSecond,
    systemSeconds: systemTicks / ticksPerSecond,
    residentBytesMax: residentKib * 1024,
  };
}

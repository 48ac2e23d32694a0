// Where an agent's main thread spent its time, from the CPU profile that it wrote.

import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Interval } from "./measure.ts";

interface CpuProfile {
  /** In microseconds on the host's monotonic clock. */
  readonly startTime: number;
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  readonly samples: readonly number[];
  /** Microseconds from the sample before. */
  readonly timeDeltas: readonly number[];
}

const FUNCTIONS_MAX = 25;
const IDLE = "(idle)";

/**
 * For each profile the functions in which it was busy longest, themselves and not what they call,
 * in the given intervals: what an agent does before and after a move is left out.
 */
export async function summarizeProfiles(
  directory: string,
  intervals: readonly Interval[],
): Promise<string> {
  const files = (await readdir(directory)).filter((file) => file.endsWith(".cpuprofile"));
  const parts = await Promise.all(
    files.sort().map(async (file) => {
      const profile = JSON.parse(await readFile(join(directory, file), "utf8")) as CpuProfile;
      const lines = summarize(profile, intervals);
      return lines.length === 0 ? "" : [file, ...lines, ""].join("\n");
    }),
  );
  return parts.join("");
}

function summarize(profile: CpuProfile, intervals: readonly Interval[]): readonly string[] {
  const selfUs = selfTimes(profile, intervals);
  const idleUs = selfUs.get(IDLE) ?? 0;
  selfUs.delete(IDLE);
  const busyUs = [...selfUs.values()].reduce((sum, us) => sum + us, 0);
  if (busyUs === 0) return [];
  const longest = [...selfUs].sort(([, a], [, b]) => b - a).slice(0, FUNCTIONS_MAX);
  const lines = longest.map(([name, us]) => {
    const share = ((us / busyUs) * 100).toFixed(1).padStart(5);
    return `${share} % ${formatMs(us).padStart(9)}  ${name}`;
  });
  return [`  busy ${formatMs(busyUs)}, idle ${formatMs(idleUs)}`, ...lines];
}

function selfTimes(
  { nodes, samples, timeDeltas, startTime }: CpuProfile,
  intervals: readonly Interval[],
): Map<string, number> {
  const names = new Map(nodes.map(({ id, callFrame }) => [id, describe(callFrame)]));
  const selfUs = new Map<string, number>();
  let atUs = startTime;
  for (const [index, id] of samples.entries()) {
    // A sample stands for the time until the next one.
    atUs += timeDeltas[index] ?? 0;
    if (!intervals.some(({ fromUs, toUs }) => fromUs <= atUs && atUs <= toUs)) continue;
    const name = names.get(id) ?? "unknown";
    selfUs.set(name, (selfUs.get(name) ?? 0) + (timeDeltas[index + 1] ?? 0));
  }
  return selfUs;
}

function formatMs(us: number): string {
  return `${(us / 1000).toFixed(0)} ms`;
}

function describe(frame: CpuProfile["nodes"][number]["callFrame"]): string {
  const { functionName, url, lineNumber } = frame;
  const name = functionName === "" ? "(anonymous)" : functionName;
  return url === "" ? name : `${name} ${basename(url)}:${lineNumber + 1}`;
}

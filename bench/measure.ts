// Moves one guest and measures from outside: the clock runs from the command to the guest's first
// sign of life at the destination, the downtime is the silence on its serial consoles, the bytes are
// those that crossed the link, and the guest itself tells whether it arrived whole.

import { assert, Deferred } from "@vmferry/core";
import { judgeHandOver, type GuestConsole, type GuestReport } from "@vmferry/testkit";
import { longestSilenceMs } from "./silence.ts";
import { readFaults, type FaultFigures } from "./traced-qemu.ts";
import { readUsage, usageSince, type AgentUsage } from "./agent-usage.ts";
import { diskPaceOf, type DiskPace } from "./disk-pace.ts";
import type { Move, MoveEnd } from "./move.ts";
import type { BenchNetwork } from "./network.ts";

/** A guest that has not arrived by then is said not to converge. */
export const MOVE_MS_MAX = 90_000;
/** For the guest to look at all of its memory and disk at the destination. */
const CHECK_MS_MAX = 120_000;
/** Over which the guest's usual speed is measured before it is moved. */
const USUAL_MS = 2000;

export interface Figures {
  /** From the command to the guest's first sign of life at the destination. */
  readonly totalMs: number;
  /** From its last sign at the source to its first at the destination. */
  readonly downtimeMs: number;
  /** Both directions, headers included. */
  readonly wireBytes: number;
  /** The guest's work while it was being moved, in parts of its usual work; null = too short to say. */
  readonly guestSpeed: number | null;
  /** Null for a guest without a disk. */
  readonly disk: DiskFigures | null;
  /** Null where memory does not follow the guest. */
  readonly postcopy: PostcopyFigures | null;
  readonly agents: readonly AgentUsage[];
}

export interface PostcopyFigures {
  /** From the command to the method's own end: all of memory is at the destination. */
  readonly wholeMs: number;
  /** The longest time without a sign of life in it, the stun or another. */
  readonly silenceMsMax: number;
  readonly faults: FaultFigures;
}

/** Null = too short to say. */
export interface DiskFigures {
  /** In the two seconds before the command. */
  readonly before: DiskPace | null;
  /** From the command until the guest was stunned. */
  readonly during: DiskPace | null;
}

export interface Interval {
  readonly fromUs: number;
  readonly toUs: number;
}

export type RunResult =
  | {
      readonly kind: "moved";
      readonly figures: Figures;
      /** What the method says about itself. */
      readonly reported: object | null;
      /** From the command to the method's own end, on the host's monotonic clock. */
      readonly interval: Interval;
    }
  | { readonly kind: "did-not-converge"; readonly reason: string; readonly wireBytes: number }
  | { readonly kind: "failed"; readonly reason: string };

interface Measurement {
  readonly move: Move;
  readonly network: BenchNetwork;
  readonly hasDisk: boolean;
}

/** Rejects when something breaks that is not the move itself. */
export async function measureMove({ move, network, hasDisk }: Measurement): Promise<RunResult> {
  const usageBefore = await readUsage(move.agents);
  const wireBytesBefore = await network.wireBytes();
  const startedAtMs = performance.now();
  const fromUs = monotonicUs();
  await move.begin();
  const end = await endOrLimit(move);
  const interval = { fromUs, toUs: monotonicUs() };
  const wireBytes = (await network.wireBytes()) - wireBytesBefore;
  if (end.kind === "failed") return end;
  if (end.kind === "did-not-converge") return { ...end, wireBytes };
  const endedAtMs = performance.now();
  const agents = usageSince(usageBefore, await readUsage(move.agents));
  await waitUntilChecked(move.dest, hasDisk);
  const { findings, silenceMs } = judgeHandOver({
    sourceLines: move.source.lines,
    destLines: move.dest.lines,
  });
  if (findings.length > 0) {
    const reason = findings.map(({ code, count, detail }) => `${code} × ${count} (${detail})`);
    return { kind: "failed", reason: reason.join("; ") };
  }
  const lastSign = move.source.latestSign;
  assert(lastSign !== null && silenceMs !== null, "a hand-over without findings has signs of life");
  const { before, during } = reportsAround(startedAtMs, move.source.reports);
  const figures = {
    totalMs: lastSign.seenAtMs + silenceMs - startedAtMs,
    downtimeMs: silenceMs,
    wireBytes,
    guestSpeed: quotient(writesPerMs(during), writesPerMs(before)),
    postcopy: await postcopyFigures(move, { startedAtMs, endedAtMs }),
    disk: hasDisk ? { before: diskPaceOf(before), during: diskPaceOf(during) } : null,
    agents,
  };
  return { kind: "moved", figures, reported: end.reported, interval };
}

async function postcopyFigures(
  { source, dest, faultLog }: Move,
  time: { readonly startedAtMs: number; readonly endedAtMs: number },
): Promise<PostcopyFigures | null> {
  if (faultLog === null) return null;
  return {
    wholeMs: time.endedAtMs - time.startedAtMs,
    silenceMsMax: longestSilenceMs([...source.lines, ...dest.lines], time),
    faults: await readFaults(faultLog),
  };
}

function monotonicUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/** Waits for the guest at the destination and for the method's own end. */
async function endOrLimit(move: Move): Promise<MoveEnd> {
  const limit = new Deferred<MoveEnd>();
  const timer = setTimeout(() => {
    limit.resolve({ kind: "did-not-converge", reason: `not within ${MOVE_MS_MAX / 1000} s` });
  }, MOVE_MS_MAX);
  try {
    const end = await Promise.race([move.ended(), limit.promise]);
    if (end.kind === "completed") {
      await move.dest.waitFor(({ latestSign }) => latestSign !== null, { timeoutMs: MOVE_MS_MAX });
    } else if (limit.settled) {
      await move.cancel();
    }
    return end;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits until the guest has swept all of its memory at the destination. Each rewrite verifies a
 * page as well; what is verified beyond that is the sweep. Of two sweeps of the disk, the second
 * has begun here.
 */
async function waitUntilChecked(dest: GuestConsole, hasDisk: boolean): Promise<void> {
  const swept = ({ verified, writes }: GuestReport): number => verified - writes;
  const whole = ({ reports, errors }: GuestConsole): boolean => {
    const [first, last] = [reports[0], reports.at(-1)];
    if (errors.length > 0) return true;
    if (first === undefined || last === undefined) return false;
    if (hasDisk && last.diskSweeps - first.diskSweeps < 2) return false;
    return swept(last) - swept(first) >= last.pages;
  };
  await dest.waitFor(whole, { timeoutMs: CHECK_MS_MAX });
}

function reportsAround(
  startedAtMs: number,
  reports: readonly GuestReport[],
): { readonly before: readonly GuestReport[]; readonly during: readonly GuestReport[] } {
  return {
    before: reports.filter(
      ({ seenAtMs }) => seenAtMs <= startedAtMs && seenAtMs > startedAtMs - USUAL_MS,
    ),
    during: reports.filter(({ seenAtMs }) => seenAtMs > startedAtMs),
  };
}

function quotient(now: number | null, usual: number | null): number | null {
  return now === null || usual === null || usual === 0 ? null : now / usual;
}

function writesPerMs(reports: readonly GuestReport[]): number | null {
  const [first, last] = [reports[0], reports.at(-1)];
  if (first === undefined || last === undefined || first === last) return null;
  return (last.writes - first.writes) / (last.seenAtMs - first.seenAtMs);
}

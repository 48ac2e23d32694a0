/**
 * After a fault: waits until there is one QEMU of the guest, it works, and both agents are done with
 * the migration; then judges what the guest itself has to say of it.
 */
import { existsSync, statSync } from "node:fs";
import type { MigrationObject } from "@vmferry/protocol";
import {
  ApiProblem,
  judgeHandOver,
  type ConsoleLine,
  type GuestConsole,
  type GuestReport,
} from "@vmferry/testkit";
import { pause, type MovingGuest } from "../moving-guest.ts";
import type { FaultBench } from "./fault-bench.ts";
import type { Side } from "./scenarios.ts";

const POLL_MS = 25;
const ANSWER_MS_MAX = 5000;
const VERIFY_MS_MAX = 60_000;
const SWEEPS = 2;
/** A guest that works has said so within this time. */
const FRESH_MS = 1000;

export interface Judged {
  readonly bench: FaultBench;
  readonly guest: MovingGuest;
  readonly destConsole: GuestConsole;
  /** Null where nothing was begun. */
  readonly id: string | null;
}

export interface Settled {
  readonly owner: Side;
  /** How the migration ended there; null where the agent knows nothing of it. */
  readonly ends: Readonly<Record<Side, string | null>>;
  /** Until the guest was seen alive, and its disk working, where it stays. */
  readonly runsMs: number | null;
  readonly diskMs: number | null;
  readonly settledMs: number;
}

interface Look {
  readonly owner: Side | null;
  readonly ends: Record<Side, string | null>;
  readonly unmet: readonly string[];
}

/** Null when it does not come to that in time; then `unmet` says what lacks. */
export async function awaitSettled(
  judged: Judged,
  { sinceMs, timeoutMs }: { readonly sinceMs: number; readonly timeoutMs: number },
): Promise<{ readonly settled: Settled | null; readonly unmet: readonly string[] }> {
  const { guest, destConsole } = judged;
  const before = destConsole.latestReport ?? guest.source.latestReport;
  const diskReads = before?.diskReads ?? 0;
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const { owner, ends, unmet } = await look(judged, { sinceMs, diskReads });
    if (owner !== null && unmet.length === 0) {
      const console = owner === "source" ? guest.source : destConsole;
      const sign = signsOf(console.lines).find((seenAtMs) => seenAtMs > sinceMs);
      const report = console.reports.find((one) => worksOn(one, { sinceMs, diskReads }));
      const settled = {
        owner,
        ends,
        runsMs: sign === undefined ? null : Math.round(sign - sinceMs),
        diskMs: report === undefined ? null : Math.round(report.seenAtMs - sinceMs),
        settledMs: Math.round(performance.now() - sinceMs),
      };
      return { settled, unmet: [] };
    }
    if (performance.now() > deadlineMs) return { settled: null, unmet };
    await pause(POLL_MS);
  }
}

/** What is wrong with the guest, after two more sweeps over its memory and disk where it is now. */
export async function findingsOf(
  { guest, destConsole }: Judged,
  owner: Side,
): Promise<readonly string[]> {
  const console = owner === "source" ? guest.source : destConsole;
  const first = console.latestReport;
  const findings: string[] = [];
  try {
    await console.waitFor((now) => isSwept(first, now), { timeoutMs: VERIFY_MS_MAX });
  } catch (error) {
    findings.push(`not verified: ${String(error).slice(0, 600)}`);
  }
  const destLines = owner === "dest" ? destConsole.lines : [];
  const verdict = judgeHandOver({ sourceLines: guest.source.lines, destLines });
  for (const { code, count, detail } of verdict.findings) {
    if (owner === "source" && code === "dest-silent") continue;
    findings.push(`${code} ×${count}: ${detail}`);
  }
  return [...findings, ...doubleRun({ guest, destConsole }, owner)];
}

/** By what the guest printed on either side, the only thing that no agent can be wrong about. */
function doubleRun(
  { guest, destConsole }: Pick<Judged, "guest" | "destConsole">,
  owner: Side,
): readonly string[] {
  const [firstAtDest] = signsOf(destConsole.lines);
  if (firstAtDest === undefined) return [];
  if (owner === "source") return ["double-run: the guest ran at the dest and is the source's"];
  const lastAtSource = guest.source.latestSign?.seenAtMs ?? 0;
  return lastAtSource > firstAtDest
    ? [`double-run: the source's guest printed ${lastAtSource - firstAtDest} ms after the dest's`]
    : [];
}

async function look(
  { bench, guest, destConsole, id }: Judged,
  since: { readonly sinceMs: number; readonly diskReads: number },
): Promise<Look> {
  const unmet: string[] = [];
  const qemus = { source: guest.qemus("source").length, dest: guest.qemus("dest").length };
  const owner = qemus.source > 0 ? "source" : qemus.dest > 0 ? "dest" : null;
  if (qemus.source + qemus.dest !== 1) {
    unmet.push(`QEMUs: ${qemus.source} at the source, ${qemus.dest} at the dest`);
  }
  const ends: Record<Side, string | null> = { source: null, dest: null };
  for (const side of ["source", "dest"] as const) {
    const { api } = bench.agent(side);
    const migration = id === null ? null : await unlessNotFound(() => api.migration(id));
    if (migration === "down") unmet.push(`the ${side} agent does not answer`);
    else if (migration !== null) {
      ends[side] = endOf(migration);
      if (!isFinal(migration)) unmet.push(`the ${side}'s migration is ${migration.phase}`);
    }
    const object = await unlessNotFound(() => api.guest(guest.name));
    const state = object === null || object === "down" ? object : object.state;
    if (side === owner && state !== "running") unmet.push(`the ${side}'s guest is ${state}`);
    const isGone = state === null || state === "handed-off";
    if (side !== owner && !isGone) unmet.push(`the ${side} still has a guest: ${state}`);
  }
  unmet.push(...strayImages(bench, owner));
  const console = owner === "source" ? guest.source : destConsole;
  const { latestSign, latestReport } = console;
  const fresh = (latestSign?.seenAtMs ?? 0) > Math.max(since.sinceMs, performance.now() - FRESH_MS);
  if (!fresh) unmet.push(`the ${owner}'s guest is silent`);
  else if (latestReport === null || !worksOn(latestReport, since)) {
    unmet.push(`the ${owner}'s guest gets nothing from its disk`);
  }
  return { owner, ends, unmet };
}

/** Of the side that does not have the guest nothing is left that could be taken for a disk. */
function strayImages(bench: FaultBench, owner: Side | null): readonly string[] {
  const unmet: string[] = [];
  const [source, dest] = [bench.imagePath("source"), bench.imagePath("dest")];
  const isMarked = (path: string): boolean => existsSync(`${path}.vmferry`);
  if (isMarked(dest)) unmet.push("an image of the dest has its mark still");
  // One without a byte and without a mark was made, and nothing more: the next offer takes it.
  const isLeft = existsSync(dest) && (statSync(dest).size > 0 || isMarked(dest));
  if (owner === "source" && isLeft) unmet.push("an image is left at the dest");
  if (owner === "source" && isMarked(source)) unmet.push("the source's image is marked");
  if (owner === "dest" && !isMarked(source)) unmet.push("the image that was left has no mark");
  return unmet;
}

function worksOn(
  report: GuestReport,
  { sinceMs, diskReads }: { readonly sinceMs: number; readonly diskReads: number },
): boolean {
  return report.seenAtMs > sinceMs && report.diskReads > diskReads;
}

function isSwept(first: GuestReport | null, { latestReport, errors }: GuestConsole): boolean {
  if (errors.length > 0) return true; // the verdict tells of it
  if (first === null || latestReport === null) return false;
  const { sweeps, diskSweeps } = latestReport;
  return sweeps >= first.sweeps + SWEEPS && diskSweeps >= first.diskSweeps + SWEEPS;
}

function signsOf(lines: readonly ConsoleLine[]): readonly number[] {
  return lines.filter(({ text }) => /^#\d+$/.test(text)).map(({ seenAtMs }) => seenAtMs);
}

export function isFinal({ phase }: MigrationObject): boolean {
  return phase === "completed" || phase === "failed" || phase === "cancelled";
}

function endOf({ phase, error }: MigrationObject): string {
  return error === null ? phase : `${phase} (${error.code})`;
}

/** Null for what the agent does not know. */
async function unlessNotFound<T>(ask: () => Promise<T>): Promise<T | null | "down"> {
  try {
    return await Promise.race([ask(), pause(ANSWER_MS_MAX).then((): "down" => "down")]);
  } catch (error) {
    return error instanceof ApiProblem && error.detail.status === 404 ? null : "down";
  }
}

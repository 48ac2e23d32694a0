// From the runs of one method in one case to one line of the table, and from lines to ratios.

import type { AgentUsage } from "./agent-usage.ts";
import type { BenchCase } from "./cases.ts";
import type { DiskPace } from "./disk-pace.ts";
import type { DiskFigures, Figures, PostcopyFigures, RunResult } from "./measure.ts";
import type { Method } from "./move.ts";

export interface MethodResult {
  readonly method: Method;
  readonly runs: readonly RunResult[];
}

export interface CaseResult {
  readonly benchCase: BenchCase;
  readonly methods: readonly MethodResult[];
}

export type Summary =
  | { readonly kind: "moved"; readonly runs: number; readonly median: Figures }
  | { readonly kind: "did-not-converge"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };

interface Comparison {
  readonly valueOf: (figures: Figures) => number | null;
  readonly bestOf: (...values: readonly number[]) => number;
}

/** By figure; null where it is none of the case's. */
const COMPARED = {
  totalMs: {
    valueOf: ({ totalMs, postcopy }) => postcopy?.wholeMs ?? totalMs,
    bestOf: Math.min,
  },
  wireBytes: { valueOf: ({ wireBytes }) => wireBytes, bestOf: Math.min },
  downtimeMs: { valueOf: ({ downtimeMs }) => downtimeMs, bestOf: Math.min },
  diskWritesPerSecond: {
    valueOf: ({ disk }) => disk?.during?.writesPerSecond ?? null,
    bestOf: Math.max,
  },
  silenceMsMax: { valueOf: ({ postcopy }) => postcopy?.silenceMsMax ?? null, bestOf: Math.min },
  faultP50Ms: { valueOf: ({ postcopy }) => postcopy?.faults.p50Ms ?? null, bestOf: Math.min },
  faultP99Ms: { valueOf: ({ postcopy }) => postcopy?.faults.p99Ms ?? null, bestOf: Math.min },
} as const satisfies Readonly<Record<string, Comparison>>;

export interface Ratio {
  readonly figure: keyof typeof COMPARED;
  /** vmferry's figure divided by the other's; null where one of them did not arrive. */
  readonly toPlain: number | null;
  /** To the best that any native method reached in this figure: not always the same method. */
  readonly toBestNative: number | null;
}

/** One run that failed, or did not converge, stands for all: a median would hide it. */
export function summarize(runs: readonly RunResult[]): Summary | null {
  const bad =
    runs.find(({ kind }) => kind === "failed") ??
    runs.find(({ kind }) => kind === "did-not-converge");
  if (bad !== undefined && bad.kind !== "moved") return bad;
  const figures = runs.flatMap((run) => (run.kind === "moved" ? [run.figures] : []));
  const [first] = figures;
  if (first === undefined) return null;
  const median = {
    totalMs: medianOf(figures.map(({ totalMs }) => totalMs)),
    downtimeMs: medianOf(figures.map(({ downtimeMs }) => downtimeMs)),
    wireBytes: medianOf(figures.map(({ wireBytes }) => wireBytes)),
    guestSpeed: medianOfKnown(figures.map(({ guestSpeed }) => guestSpeed)),
    disk: medianDisk(figures.flatMap(({ disk }) => disk ?? [])),
    postcopy: medianPostcopy(figures.flatMap(({ postcopy }) => postcopy ?? [])),
    agents: first.agents.map(({ role }, index) => medianUsage(role, index, figures)),
  };
  return { kind: "moved", runs: figures.length, median };
}

/** Empty where there is nothing to compare with each other. */
export function ratiosOf({ benchCase, methods }: CaseResult): readonly Ratio[] {
  const ours = methods.find(({ method }) => !method.native);
  const natives = methods.filter(({ method }) => method.native);
  if (ours === undefined || natives.length === 0) return [];
  const plain = natives.find(({ method }) => method.name === "native plain");
  return figuresOf(benchCase).map((figure) => {
    const numerator = valueOf(ours, figure);
    const known = natives.flatMap((native) => valueOf(native, figure) ?? []);
    const best = known.length === 0 ? null : COMPARED[figure].bestOf(...known);
    return {
      figure,
      toPlain: quotient(numerator, plain === undefined ? null : valueOf(plain, figure)),
      toBestNative: quotient(numerator, best),
    };
  });
}

/** Those that are compared in this case. */
function figuresOf({ guest, postcopy }: BenchCase): readonly Ratio["figure"][] {
  const figures: Ratio["figure"][] = ["totalMs", "wireBytes", "downtimeMs"];
  if (guest.disk !== undefined) figures.push("diskWritesPerSecond");
  if (postcopy === true) figures.push("silenceMsMax", "faultP50Ms", "faultP99Ms");
  return figures;
}

function valueOf({ runs }: MethodResult, figure: Ratio["figure"]): number | null {
  const summary = summarize(runs);
  return summary?.kind === "moved" ? COMPARED[figure].valueOf(summary.median) : null;
}

function quotient(a: number | null, b: number | null): number | null {
  return a === null || b === null || b === 0 ? null : a / b;
}

function medianUsage(
  role: AgentUsage["role"],
  index: number,
  figures: readonly Figures[],
): AgentUsage {
  const usages = figures.flatMap(({ agents }) => agents[index] ?? []);
  return {
    role,
    cpuSeconds: medianOf(usages.map(({ cpuSeconds }) => cpuSeconds)),
    systemSeconds: medianOf(usages.map(({ systemSeconds }) => systemSeconds)),
    residentBytesMax: medianOf(usages.map(({ residentBytesMax }) => residentBytesMax)),
  };
}

function medianDisk(disks: readonly DiskFigures[]): DiskFigures | null {
  if (disks.length === 0) return null;
  return {
    before: medianPace(disks.flatMap(({ before }) => before ?? [])),
    during: medianPace(disks.flatMap(({ during }) => during ?? [])),
  };
}

function medianPostcopy(all: readonly PostcopyFigures[]): PostcopyFigures | null {
  if (all.length === 0) return null;
  const faults = all.map((one) => one.faults);
  return {
    wholeMs: medianOf(all.map(({ wholeMs }) => wholeMs)),
    silenceMsMax: medianOf(all.map(({ silenceMsMax }) => silenceMsMax)),
    faults: {
      count: medianOf(faults.map(({ count }) => count)),
      p50Ms: medianOfKnown(faults.map(({ p50Ms }) => p50Ms)),
      p99Ms: medianOfKnown(faults.map(({ p99Ms }) => p99Ms)),
      maxMs: medianOfKnown(faults.map(({ maxMs }) => maxMs)),
    },
  };
}

function medianPace(paces: readonly DiskPace[]): DiskPace | null {
  if (paces.length === 0) return null;
  return {
    writesPerSecond: medianOf(paces.map(({ writesPerSecond }) => writesPerSecond)),
    p50Us: medianOfKnown(paces.map(({ p50Us }) => p50Us)),
    p99Us: medianOfKnown(paces.map(({ p99Us }) => p99Us)),
  };
}

function medianOfKnown(values: readonly (number | null)[]): number | null {
  const known = values.flatMap((value) => value ?? []);
  return known.length === 0 ? null : medianOf(known);
}

/** Of an even number of values the mean of the two in the middle. */
function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1] ?? NaN;
  const lower = sorted[(sorted.length - 1) >> 1] ?? NaN;
  return (lower + upper) / 2;
}

// From the runs of one method in one case to one line of the table, and from lines to ratios.

import type { AgentUsage } from "./agent-usage.ts";
import type { BenchCase } from "./cases.ts";
import type { Figures, RunResult } from "./measure.ts";
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

export const COMPARED = ["totalMs", "wireBytes", "downtimeMs"] as const;

export interface Ratio {
  readonly figure: (typeof COMPARED)[number];
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
    agents: first.agents.map(({ role }, index) => medianUsage(role, index, figures)),
  };
  return { kind: "moved", runs: figures.length, median };
}

/** Empty where there is nothing to compare with each other. */
export function ratiosOf({ methods }: CaseResult): readonly Ratio[] {
  const ours = methods.find(({ method }) => !method.native);
  const natives = methods.filter(({ method }) => method.native);
  if (ours === undefined || natives.length === 0) return [];
  const plain = natives.find(({ method }) => method.name === "native plain");
  return COMPARED.map((figure) => {
    const numerator = figureOf(ours, figure);
    const known = natives.flatMap((native) => figureOf(native, figure) ?? []);
    const best = known.length === 0 ? null : Math.min(...known);
    return {
      figure,
      toPlain: quotient(numerator, plain === undefined ? null : figureOf(plain, figure)),
      toBestNative: quotient(numerator, best),
    };
  });
}

function figureOf({ runs }: MethodResult, figure: Ratio["figure"]): number | null {
  const summary = summarize(runs);
  return summary?.kind === "moved" ? summary.median[figure] : null;
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

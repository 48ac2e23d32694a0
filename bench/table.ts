// The results as Markdown: one table of figures, one of the guests' disks, one of ratios.

import type { AgentUsage } from "./agent-usage.ts";
import type { DiskFigures, Figures, PostcopyFigures } from "./measure.ts";
import { ratiosOf, summarize, type CaseResult, type MethodResult } from "./summary.ts";

const HEADINGS = [
  ...["case", "guest (memory, writes)", "link", "method", "total s", "on the wire MB"],
  ...["downtime ms", "guest's speed", "agents' CPU s", "agents' memory MB"],
];
const DISK_HEADINGS = [
  ...["case", "method", "disk writes/s", "before", "p50 µs", "before", "p99 µs", "before"],
];
const RATIO_HEADINGS = [
  ...["vmferry ÷", "total: plain", "best native", "wire: plain", "best native"],
  ...["downtime: plain", "best native"],
];
const POSTCOPY_HEADINGS = [
  ...["case", "guest (memory, writes)", "link", "method", "total s", "runs there after s"],
  ...[
    "on the wire MB",
    "downtime ms",
    "longest silence ms",
    "faults",
    "p50 ms",
    "p99 ms",
    "max ms",
  ],
];
const POSTCOPY_RATIO_HEADINGS = [
  ...["vmferry ÷ native post-copy", "total", "wire", "downtime", "longest silence"],
  ...["fault p50", "fault p99"],
];
const DISK_RATIO_HEADINGS = ["disk writes/s: plain", "best native"];
const LEFT_ALIGNED = new Set([
  ...["case", "guest (memory, writes)", "link", "method"],
  ...["vmferry ÷", "vmferry ÷ native post-copy"],
]);
const UNKNOWN = "–";

export function formatTables(results: readonly CaseResult[]): string {
  const whole = results.filter(({ benchCase }) => benchCase.postcopy !== true);
  const postcopy = results.filter(({ benchCase }) => benchCase.postcopy === true);
  const withDisks = results.filter(({ benchCase }) => benchCase.guest.disk !== undefined);
  const tables = [
    formatTable(HEADINGS, rowsOf(whole, methodCells)),
    formatTable(DISK_HEADINGS, withDisks.flatMap(diskRows)),
    formatRatios(whole, withDisks.length > 0),
    formatTable(POSTCOPY_HEADINGS, rowsOf(postcopy, postcopyCells)),
    formatTable(POSTCOPY_RATIO_HEADINGS, postcopy.flatMap(postcopyRatios)),
  ];
  return tables.filter((table) => table !== "").join("\n");
}

function rowsOf(
  results: readonly CaseResult[],
  cellsOf: (result: MethodResult) => readonly string[],
): readonly (readonly string[])[] {
  return results.flatMap(({ benchCase, methods }) =>
    methods.map((result, index) => [
      ...(index === 0 ? [benchCase.name, benchCase.about, benchCase.link.name] : ["", "", ""]),
      result.method.name,
      ...cellsOf(result),
    ]),
  );
}

/** The same in a few words, for the one who waits. */
export function formatFigures(figures: Figures): string {
  const [total, wire, downtime] = figureCells(figures);
  const words = `${total ?? ""} s, ${wire ?? ""} MB, ${downtime ?? ""} ms down`;
  if (figures.postcopy !== null) return `${words}; ${formatPostcopy(figures.postcopy)}`;
  if (figures.disk === null) return words;
  const [rate, rateBefore, p50, p50Before, p99, p99Before] = diskCells(figures.disk);
  return (
    `${words}; ${rateBefore ?? ""} → ${rate ?? ""} disk writes/s, ` +
    `p50 ${p50Before ?? ""} → ${p50 ?? ""} µs, p99 ${p99Before ?? ""} → ${p99 ?? ""} µs`
  );
}

function diskRows({ benchCase, methods }: CaseResult): readonly (readonly string[])[] {
  return methods.map(({ method, runs }, index) => {
    const summary = summarize(runs);
    const disk = summary?.kind === "moved" ? summary.median.disk : null;
    const cells = diskCells(disk ?? { before: null, during: null });
    return [index === 0 ? benchCase.name : "", method.name, ...cells];
  });
}

/** What it was during the move, each followed by what it was before. */
function diskCells({ before, during }: DiskFigures): readonly string[] {
  const cellOf = (value: number | null | undefined): string => value?.toFixed(0) ?? UNKNOWN;
  return [
    ...[during, before].map((pace) => cellOf(pace?.writesPerSecond)),
    ...[during, before].map((pace) => cellOf(pace?.p50Us)),
    ...[during, before].map((pace) => cellOf(pace?.p99Us)),
  ];
}

function formatRatios(results: readonly CaseResult[], withDisk: boolean): string {
  const headings = withDisk ? [...RATIO_HEADINGS, ...DISK_RATIO_HEADINGS] : RATIO_HEADINGS;
  const rows = results.flatMap((result) => {
    const cells = ratiosOf(result).flatMap(({ toPlain, toBestNative }) => [toPlain, toBestNative]);
    if (cells.length === 0) return [];
    const row = [result.benchCase.name, ...cells.map(formatRatio)];
    return [[...row, ...headings.slice(row.length).map(() => UNKNOWN)]];
  });
  return formatTable(headings, rows);
}

function formatPostcopy({ wholeMs, silenceMsMax, faults }: PostcopyFigures): string {
  const [p50, p99, max] = [faults.p50Ms, faults.p99Ms, faults.maxMs].map(formatMs);
  return (
    `whole after ${(wholeMs / 1000).toFixed(2)} s, silent for ${silenceMsMax.toFixed(0)} ms, ` +
    `${faults.count} faults, p50 ${p50 ?? ""}, p99 ${p99 ?? ""}, max ${max ?? ""} ms`
  );
}

function postcopyRatios(result: CaseResult): readonly (readonly string[])[] {
  const ratios = ratiosOf(result).map(({ toBestNative }) => formatRatio(toBestNative));
  return ratios.length === 0 ? [] : [[result.benchCase.name, ...ratios]];
}

function methodCells(result: MethodResult): readonly string[] {
  const figures = figuresOf(result);
  if (typeof figures === "string") return [figures, "", "", "", "", ""];
  return figureCells(figures);
}

function postcopyCells(result: MethodResult): readonly string[] {
  const figures = figuresOf(result);
  if (typeof figures === "string") return [figures, ...POSTCOPY_HEADINGS.slice(5).map(() => "")];
  const { postcopy, totalMs, wireBytes, downtimeMs } = figures;
  const faults = postcopy?.faults;
  return [
    postcopy === null ? UNKNOWN : (postcopy.wholeMs / 1000).toFixed(2),
    (totalMs / 1000).toFixed(2),
    (wireBytes / 1e6).toFixed(0),
    downtimeMs.toFixed(0),
    postcopy?.silenceMsMax.toFixed(0) ?? UNKNOWN,
    faults?.count.toFixed(0) ?? UNKNOWN,
    ...[faults?.p50Ms, faults?.p99Ms, faults?.maxMs].map((ms) => formatMs(ms ?? null)),
  ];
}

/** Of all runs, or in words why there are none. */
function figuresOf({ runs }: MethodResult): Figures | string {
  const summary = summarize(runs);
  if (summary?.kind === "moved") return summary.median;
  const verdict =
    summary === null
      ? "not measured"
      : summary.kind === "failed"
        ? `**FAILED**: ${summary.reason}`
        : `did not converge (${summary.reason})`;
  return verdict.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function figureCells(figures: Figures): readonly string[] {
  const { totalMs, wireBytes, downtimeMs, guestSpeed, agents } = figures;
  return [
    (totalMs / 1000).toFixed(2),
    (wireBytes / 1e6).toFixed(0),
    downtimeMs.toFixed(0),
    guestSpeed === null ? UNKNOWN : `${(guestSpeed * 100).toFixed(0)} %`,
    bothAgents(agents, ({ cpuSeconds }) => cpuSeconds.toFixed(1)),
    bothAgents(agents, ({ residentBytesMax }) => (residentBytesMax / 1e6).toFixed(0)),
  ];
}

function bothAgents(agents: readonly AgentUsage[], format: (usage: AgentUsage) => string): string {
  return agents.length === 0 ? UNKNOWN : agents.map(format).join(" + ");
}

function formatMs(ms: number | null): string {
  return ms === null ? UNKNOWN : ms.toFixed(ms < 10 ? 2 : 0);
}

function formatRatio(ratio: number | null): string {
  return ratio === null ? UNKNOWN : ratio.toFixed(2);
}

/** Nothing where there are no rows. */
function formatTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return "";
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |\n`;
  const rule = headings.map((heading) => (LEFT_ALIGNED.has(heading) ? "---" : "---:"));
  return [headings, rule, ...rows].map(line).join("");
}

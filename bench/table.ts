// The results as Markdown: one table of figures, one of ratios.

import type { AgentUsage } from "./agent-usage.ts";
import type { Figures } from "./measure.ts";
import { ratiosOf, summarize, type CaseResult, type MethodResult } from "./summary.ts";

const HEADINGS = [
  ...["case", "guest (memory, writes)", "link", "method", "total s", "on the wire MB"],
  ...["downtime ms", "guest's speed", "agents' CPU s", "agents' memory MB"],
];
const RATIO_HEADINGS = [
  ...["vmferry ÷", "total: plain", "best native", "wire: plain", "best native"],
  ...["downtime: plain", "best native"],
];
const LEFT_ALIGNED = new Set(["case", "guest (memory, writes)", "link", "method", "vmferry ÷"]);
const UNKNOWN = "–";

export function formatTables(results: readonly CaseResult[]): string {
  const rows = results.flatMap(({ benchCase, methods }) =>
    methods.map((result, index) => [
      ...(index === 0 ? [benchCase.name, benchCase.about, benchCase.link.name] : ["", "", ""]),
      result.method.name,
      ...methodCells(result),
    ]),
  );
  const ratios = results.flatMap((result) => {
    const cells = ratiosOf(result).flatMap(({ toPlain, toBestNative }) => [toPlain, toBestNative]);
    return cells.length === 0 ? [] : [[result.benchCase.name, ...cells.map(formatRatio)]];
  });
  const tables = [formatTable(HEADINGS, rows)];
  if (ratios.length > 0) tables.push(formatTable(RATIO_HEADINGS, ratios));
  return tables.join("\n");
}

/** The same in a few words, for the one who waits. */
export function formatFigures(figures: Figures): string {
  const [total, wire, downtime] = figureCells(figures);
  return `${total ?? ""} s, ${wire ?? ""} MB, ${downtime ?? ""} ms down`;
}

function methodCells({ runs }: MethodResult): readonly string[] {
  const summary = summarize(runs);
  if (summary?.kind === "moved") return figureCells(summary.median);
  const verdict =
    summary === null
      ? "not measured"
      : summary.kind === "failed"
        ? `**FAILED**: ${summary.reason}`
        : `did not converge (${summary.reason})`;
  return [verdict.replaceAll("|", "\\|").replaceAll("\n", " "), "", "", "", "", ""];
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

function formatRatio(ratio: number | null): string {
  return ratio === null ? UNKNOWN : ratio.toFixed(2);
}

function formatTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |\n`;
  const rule = headings.map((heading) => (LEFT_ALIGNED.has(heading) ? "---" : "---:"));
  return [headings, rule, ...rows].map(line).join("");
}

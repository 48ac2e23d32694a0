import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const METHODS: readonly string[] = ["native plain", "native multifd+zstd", "vmferry"];

/** The cells of each line that is a row of a table. */
function rowsOf(path: string): string[][] {
  const text = readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
  const lines = text.split("\n").filter((line) => line.startsWith("|"));
  return lines.map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** By case: what the README shows of docs/benchmarks.md. */
function shownCases(): string[][] {
  const rows = rowsOf("docs/benchmarks.md");
  const ratios = new Map<string, string[]>();
  for (const [name = "", ...cells] of rows) {
    // A case alone before its ratios; they come in pairs, the second is to the best native.
    if (cells.length >= 6 && cells.every((cell) => /^(?:[\d.]+|–)$/.test(cell))) {
      ratios.set(name, cells);
    }
  }
  const figures = rows.filter(
    ({ length, 3: method = "" }) => length === 10 && METHODS.includes(method),
  );
  return figures.flatMap(([name = ""], index) => {
    if (name === "") return [];
    const ofCase = figures.slice(index, index + METHODS.length);
    const column = (at: number): string[] => ofCase.map((cells) => cells[at] ?? "");
    const [, total = "", , wire = "", , downtime = ""] = ratios.get(name) ?? [];
    return [[`\`${name}\``, ...column(4), total, ...column(6), downtime, wire]];
  });
}

test("the README's table of speed is that of docs/benchmarks.md", () => {
  const cases = shownCases();
  expect(cases.length).toBeGreaterThan(5);
  const rows = rowsOf("README.md").filter(([name = "", total = ""]) => {
    return name.startsWith("`") && /^[\d–]/.test(total);
  });
  const format = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  // After a new measurement these are the lines for the README.
  expect(rows.map(format)).toEqual(cases.map(format));
});

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { problemCodes } from "./problem-codes.ts";

const DOCUMENT = new URL("../../../../docs/operations.md", import.meta.url);

/** Of the tables under "Error codes": code, meaning, what to do. */
function documentedRows(): { readonly code: string; readonly cells: readonly string[] }[] {
  const text = readFileSync(DOCUMENT, "utf8");
  const [, section = ""] = /^## Error codes$([\s\S]*?)(?=^## |(?![\s\S]))/m.exec(text) ?? [];
  return [...section.matchAll(/^\| `([a-z0-9-]+)` \|(.*)\|$/gm)].map(
    ([, code = "", rest = ""]) => ({
      code,
      cells: rest.split("|").map((cell) => cell.trim()),
    }),
  );
}

test("docs/operations.md has a line for each code, once, and for nothing else", () => {
  const codes = documentedRows().map(({ code }) => code);
  const known: readonly string[] = Object.keys(problemCodes);
  expect({
    "codes that lack a line under Error codes in docs/operations.md": known.filter(
      (code) => !codes.includes(code),
    ),
    "lines there whose code does not exist": codes.filter((code) => !known.includes(code)),
    "codes that have two lines": codes.filter((code, index) => codes.indexOf(code) !== index),
  }).toEqual({
    "codes that lack a line under Error codes in docs/operations.md": [],
    "lines there whose code does not exist": [],
    "codes that have two lines": [],
  });
});

test("each line says what the code means and what to do", () => {
  const incomplete = documentedRows()
    .filter(({ cells }) => cells.length !== 2 || cells.some((cell) => cell === ""))
    .map(({ code }) => code);
  expect(incomplete).toEqual([]);
});

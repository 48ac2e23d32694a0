import type { Check } from "../api/check.ts";
import { printable } from "./printable.ts";

const STATUS_COLUMNS = 4;
const COUNTED = [
  ["pass", "passed"],
  ["warn", "with a warning"],
  ["fail", "failed"],
  ["skip", "skipped"],
] as const;

/** A line a check, with what to do below it, and their numbers at the end. */
export function renderChecks(checks: readonly Check[]): string {
  const nameColumns = Math.max(0, ...checks.map(({ name }) => name.length));
  const indent = " ".repeat(STATUS_COLUMNS + nameColumns + 4);
  const lines = checks.flatMap(({ name, status, detail, hint = null }) => [
    `${status.padEnd(STATUS_COLUMNS)}  ${name.padEnd(nameColumns)}  ${indented(detail, indent)}`,
    ...(hint === null || hint === "" ? [] : [`${indent}-> ${indented(hint, `${indent}   `)}`]),
  ]);
  return `${[...lines, summaryOf(checks)].join("\n")}\n`;
}

function indented(text: string, indent: string): string {
  return printable(text).replaceAll("\n", `\n${indent}`);
}

function summaryOf(checks: readonly Check[]): string {
  const counts = COUNTED.map(([status, words]) => {
    const count = checks.filter((check) => check.status === status).length;
    return count === 0 ? "" : `${count} ${words}`;
  });
  const head = checks.length === 1 ? "1 check" : `${checks.length} checks`;
  return [`${head}:`, counts.filter((text) => text !== "").join(", ") || "none"].join(" ");
}

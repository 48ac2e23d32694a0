import { isCounted, type Migration } from "../api/migration.ts";
import { formatBytes, formatDuration, formatRate } from "../units/format-amount.ts";
import { printable } from "./printable.ts";

/** Of what followed the guest. */
const OF_FALLBACK: ReadonlyMap<string, string> = new Map([
  ["growing", "a part of the rest also by the share"],
  ["complete", "all of the rest also by the share"],
  ["failed", "the share failed"],
]);

/** What became of a migration that has ended, in one line. */
export function summaryLine(migration: Migration): string {
  const { guest, destination, phase, error } = migration;
  if (phase === "completed") {
    return `completed: ${guest} runs at ${destination}. ${figures(migration)}`;
  }
  const outcome = `${phase}: ${guest} was not moved to ${destination}`;
  if (error === null || error.code === phase) return `${outcome}.`;
  return `${outcome}: ${printable(error.detail)} (${error.code})`;
}

function figures(migration: Migration): string {
  const { result, ram, fallback } = migration;
  const totalMs = result?.totalMs ?? null;
  const wireBytes = result?.wireBytes ?? null;
  return [
    `total ${formatDuration(totalMs)}`,
    `downtime ${formatDuration(result?.downtimeMs ?? null)}`,
    `${formatBytes(wireBytes)} on the wire`,
    `average ${formatRate(average(wireBytes, totalMs))}`,
    isCounted(migration) ? passes(ram.pass) : "unknown passes",
    ...(fallback === null ? [] : [OF_FALLBACK.get(fallback) ?? `share ${fallback}`]),
  ].join(", ");
}

function passes(count: number): string {
  return count === 1 ? "1 pass" : `${count} passes`;
}

function average(bytes: number | null, durationMs: number | null): number | null {
  if (bytes === null || durationMs === null || durationMs === 0) return null;
  return (bytes * 1000) / durationMs;
}

import { usageError } from "../cli-error.ts";

const UNIT_MS = new Map([
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000],
]);

/** `300ms`, `1.5s`, `2m` or `1h` as whole milliseconds. A number without a unit is refused. */
export function parseDurationMs(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)([a-zA-Z]*)$/.exec(text) ?? [];
  const unitMs = UNIT_MS.get(unit);
  if (number === undefined || unitMs === undefined) {
    const hint = unit === "" && number !== undefined ? `; did you mean ${number}ms?` : "";
    throw usageError(`"${text}" is no duration such as 300ms, 1.5s, 2m or 1h${hint}`);
  }
  // Rounding takes back what 1.001 * 1000 adds; what is left of a millisecond then is the caller's.
  const durationMs = Math.round(Number(number) * unitMs * 1e6) / 1e6;
  if (durationMs < 1 || !Number.isSafeInteger(durationMs)) {
    throw usageError(`"${text}" has to be a whole number of milliseconds, and at least one`);
  }
  return durationMs;
}

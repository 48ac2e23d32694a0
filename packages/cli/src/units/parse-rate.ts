import { usageError } from "../cli-error.ts";

const BITS_PER_BYTE = 8;
const UNIT_BYTES = new Map([
  ["B/s", 1],
  ["kB/s", 1e3],
  ["MB/s", 1e6],
  ["GB/s", 1e9],
  ["KiB/s", 1024],
  ["MiB/s", 1024 ** 2],
  ["GiB/s", 1024 ** 3],
  ["kbit/s", 1e3 / BITS_PER_BYTE],
  ["Mbit/s", 1e6 / BITS_PER_BYTE],
  ["Gbit/s", 1e9 / BITS_PER_BYTE],
]);

/**
 * `100MB/s`, `95.4MiB/s`, `1Gbit/s`, or bytes a second as a bare number. Case counts, since b and B
 * are a factor of eight apart.
 */
export function parseBytesPerSecond(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)(.*)$/.exec(text) ?? [];
  const unitBytes = unit === "" ? 1 : UNIT_BYTES.get(unit);
  if (number === undefined || unitBytes === undefined) {
    throw usageError(
      `"${text}" is no rate such as 100MB/s, 100MiB/s or 1Gbit/s${hint(number, unit)}`,
    );
  }
  const rate = Math.round(Number(number) * unitBytes);
  if (rate < 1 || !Number.isSafeInteger(rate)) {
    throw usageError(`"${text}" has to be at least one byte a second, and less than 2^53`);
  }
  return rate;
}

function hint(number: string | undefined, unit: string): string {
  if (number === undefined) return "";
  const sameLetters = (known: string): boolean =>
    [unit, `${unit}/s`].some((written) => written.toLowerCase() === known.toLowerCase());
  const meant = [...UNIT_BYTES.keys()].filter(sameLetters).map((known) => `${number}${known}`);
  return meant.length === 0 ? "" : `; did you mean ${meant.join(" or ")}?`;
}

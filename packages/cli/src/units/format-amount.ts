/** Amounts for people: three digits that count. Null is "unknown", never a guess. */

const SIZE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;
const RATE_UNITS = ["B/s", "kB/s", "MB/s", "GB/s"] as const;
const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

/** Powers of 1024, as memory comes in them. */
export function formatBytes(bytes: number | null): string {
  return scaled(bytes, SIZE_UNITS, 1024);
}

/** Powers of 1000, as links and their limits come in them. */
export function formatRate(bytesPerSecond: number | null): string {
  return scaled(bytesPerSecond, RATE_UNITS, 1000);
}

export function formatDuration(durationMs: number | null): string {
  if (durationMs === null) return "unknown";
  if (Math.round(durationMs) < SECOND_MS) return `${Math.round(durationMs)} ms`;
  const seconds = Math.round(durationMs / SECOND_MS);
  if (seconds * SECOND_MS < MINUTE_MS) return `${threeDigits(durationMs / SECOND_MS)} s`;
  if (seconds * SECOND_MS < HOUR_MS) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(durationMs / MINUTE_MS);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function scaled(amount: number | null, units: readonly string[], factor: number): string {
  if (amount === null) return "unknown";
  let value = amount;
  let power = 0;
  // 999.5 would be written as 1000 of a unit that has a bigger one.
  while (power < units.length - 1 && Math.round(value) >= factor) {
    value /= factor;
    power += 1;
  }
  const digits = power === 0 ? String(Math.round(value)) : threeDigits(value);
  return `${digits} ${units[power] ?? ""}`;
}

function threeDigits(value: number): string {
  const decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return value.toFixed(decimals);
}

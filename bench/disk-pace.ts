// How fast the guest's disk was for the guest, from the reports that it writes ten times a second.

import type { GuestReport } from "@vmferry/testkit";

export interface DiskPace {
  readonly writesPerSecond: number;
  /** Half of the writes took no longer; null where there were no writes. */
  readonly p50Us: number | null;
  readonly p99Us: number | null;
}

/** The writes of one report. */
interface Writes {
  readonly count: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Null where the reports are too few to tell. */
export function diskPaceOf(reports: readonly GuestReport[]): DiskPace | null {
  const [first, last] = [reports[0], reports.at(-1)];
  if (first === undefined || last === undefined || first === last) return null;
  const writes = reports.slice(1).map((report, index) => ({
    count: report.diskWrites - (reports[index]?.diskWrites ?? 0),
    p50Us: report.diskP50Us,
    p99Us: report.diskP99Us,
  }));
  const seconds = (last.seenAtMs - first.seenAtMs) / 1000;
  return {
    writesPerSecond: (last.diskWrites - first.diskWrites) / seconds,
    p50Us: percentile(writes, 0.5),
    p99Us: percentile(writes, 0.99),
  };
}

/**
 * Of all writes of all reports. A report tells only its own two percentiles, so that the result is
 * one of those: the least within which, by all reports together, so many of the writes were done.
 */
function percentile(reports: readonly Writes[], share: number): number | null {
  const all = sumOf(reports, ({ count }) => count);
  if (all === 0) return null;
  const candidates = reports
    .filter(({ count }) => count > 0)
    .flatMap(({ p50Us, p99Us }) => [p50Us, p99Us])
    .sort((a, b) => a - b);
  const within = (us: number): number =>
    sumOf(reports, (writes) => writes.count * shareWithin(writes, us));
  return candidates.find((us) => within(us) >= all * share) ?? candidates.at(-1) ?? null;
}

/**
 * The share of a report's writes that took no longer: exact at its two percentiles. Between them
 * the share of those that took longer is taken to fall evenly on a logarithmic scale, as it does
 * where a few stragglers are far slower than the rest. Above, all of them: a report has so few
 * writes that its 99th percentile is the slowest one.
 */
function shareWithin({ p50Us, p99Us }: Writes, us: number): number {
  if (us >= p99Us) return 1;
  if (us < p50Us) return (0.5 * us) / p50Us;
  return 1 - 0.5 * 0.02 ** ((us - p50Us) / (p99Us - p50Us));
}

function sumOf<T>(items: readonly T[], valueOf: (item: T) => number): number {
  return items.reduce((sum, item) => sum + valueOf(item), 0);
}

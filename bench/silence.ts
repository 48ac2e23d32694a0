import { parseConsoleLine, type ConsoleLine } from "@vmferry/testkit";

/** The longest time between two signs of life, of those that reach into the given time. */
export function longestSilenceMs(
  lines: readonly ConsoleLine[],
  { startedAtMs, endedAtMs }: { readonly startedAtMs: number; readonly endedAtMs: number },
): number {
  let longestMs = 0;
  let lastMs: number | null = null;
  for (const { text, seenAtMs, complete } of lines) {
    if (!complete || parseConsoleLine(text).kind !== "sign") continue;
    if (lastMs !== null && seenAtMs > startedAtMs && lastMs < endedAtMs) {
      longestMs = Math.max(longestMs, seenAtMs - lastMs);
    }
    lastMs = seenAtMs;
  }
  return longestMs;
}

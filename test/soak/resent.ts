/** What a source agent has sent twice because links were lost, from its log. */
import type { LogLine } from "@vmferry/testkit";

const PAGE_BYTES = 4096;

/** After one loss of the link. */
export interface Resent {
  readonly bytes: number;
  /** What had been sent and was not acknowledged; null where the log does not tell. */
  readonly unacknowledgedBytes: number | null;
}

export function resentAfterCuts(log: readonly LogLine[]): readonly Resent[] {
  return [...ofBulk(log), ...ofPages(log)];
}

/** Bulk connections go on where they were: the frames that were under way are sent again. */
function ofBulk(log: readonly LogLine[]): readonly Resent[] {
  return log
    .filter(({ msg }) => msg === "the link is back")
    .map((line) => ({ bytes: Number(line["resentBytes"]), unacknowledgedBytes: null }));
}

/** Page lanes begin anew with what the dest lacks. Pages are counted uncompressed. */
function ofPages(log: readonly LogLine[]): readonly Resent[] {
  const ends = log.filter(({ msg }) => String(msg).startsWith("page lanes "));
  const counted = ends.filter((line) => line["resentPages"] !== undefined);
  return counted.flatMap((lost, index) => {
    const line = counted[index + 1];
    if (line === undefined) return [];
    const pages = Number(line["resentPages"]) - Number(lost["resentPages"]);
    const unacknowledgedBytes = Number(lost["unplacedPages"]) * PAGE_BYTES;
    return [{ bytes: pages * PAGE_BYTES, unacknowledgedBytes }];
  });
}

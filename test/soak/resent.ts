/** What a source agent has sent twice because links were lost, from its log. */
import type { LogLine } from "@vmferry/testkit";

const PAGE_BYTES = 4096;

/** Between one loss of the link and the next. */
export interface Resent {
  readonly bytes: number;
  /**
   * What was sent and not acknowledged when the link was lost, and what of earlier losses was not
   * sent again before; null where the log does not tell.
   */
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
  let owedPages = 0;
  return counted.flatMap((lost, index) => {
    const line = counted[index + 1];
    if (line === undefined) return [];
    const pages = Number(line["resentPages"]) - Number(lost["resentPages"]);
    owedPages += Number(lost["unplacedPages"]);
    const unacknowledgedBytes = owedPages * PAGE_BYTES;
    owedPages -= pages;
    return [{ bytes: pages * PAGE_BYTES, unacknowledgedBytes }];
  });
}

/** What is missing, as messages of a page lane: the last one is marked, and empty if nothing is. */
import type { PageSet } from "@vmferry/agent";
import { limits, type MissingRun, type PageMessageOf } from "@vmferry/protocol";

const RUN_PAGES_MAX = 2 ** 31;

/** Pages may be placed between two messages: they are left out, or named although they are there. */
export function* missingMessages(missing: PageSet): Generator<PageMessageOf<"missing">> {
  let block = 0;
  let runs: MissingRun[] = [];
  for (const run of missing.runs(RUN_PAGES_MAX)) {
    const isOther = run.block !== block || runs.length === limits.MISSING_RUNS_MAX;
    if (isOther && runs.length > 0) {
      yield { kind: "missing", block, runs, last: false };
      runs = [];
    }
    block = run.block;
    runs.push({ first: run.first, count: run.count });
  }
  yield { kind: "missing", block: runs.length === 0 ? 0 : block, runs, last: true };
}

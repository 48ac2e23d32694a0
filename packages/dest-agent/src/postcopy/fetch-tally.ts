/** What was fetched of a guest, and how long its vCPUs waited for it. */
import { LatencyHistogram } from "@vmferry/core";

export interface FetchCounters {
  placedPages: number;
  /** Of them, those of zeros. */
  zeroPages: number;
  /** Of the placed ones, those from a page file. */
  filePages: number;
  /** Pages that QEMU asked for. */
  requestedPages: number;
  /** Pages that came although they were there. */
  twicePages: number;
  /** Pairs of lanes behind the first. */
  reconnects: number;
}

/** Outlives a QEMU that lets go, and what is fetched until then. */
export class FetchTally {
  readonly counters: FetchCounters = {
    placedPages: 0,
    zeroPages: 0,
    filePages: 0,
    requestedPages: 0,
    twicePages: 0,
    reconnects: 0,
  };
  /** How long vCPUs waited for pages. */
  readonly waits = new LatencyHistogram();
}

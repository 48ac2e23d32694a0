import type { PageHashes, PageSet } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import type { RamBlock, RamSection } from "@vmferry/qemu";
import type { StreamSink } from "../ram/qemu-sink.ts";
import type { PagePlacer } from "./page-placer.ts";
import { PageRequests } from "./page-requests.ts";
import { QemuPagePlacer } from "./qemu-page-placer.ts";

/** A QEMU that lacks some of its memory, and what it is given of it. */
export interface Fetching {
  /** Of its memory, in their order. */
  readonly blocks: readonly RamBlock[];
  readonly placer: PagePlacer;
  readonly requests: PageRequests;
  /** QEMU has everything; rejects when it has closed the way for pages before. */
  readonly shut: Promise<void>;
  /** Pages do not come any more; QEMU stays, and waits for the next who brings them. */
  close(): Promise<void>;
}

export interface FetchingOptions {
  readonly section: RamSection;
  readonly missing: PageSet;
  readonly hashes: PageHashes | null;
  readonly sink: StreamSink;
  /** Its channel for pages that it has asked for; null where it has none. */
  readonly urgentSink: StreamSink | null;
  readonly shut: Promise<void>;
  readonly clock: Clock;
  readonly close: () => Promise<void>;
}

export function openFetching(options: FetchingOptions): Fetching {
  const { section, missing, clock, shut, close } = options;
  const requests = new PageRequests({
    blocks: section.blocks,
    missing,
    nowMs: () => clock.nowMs(),
  });
  const isAsked = requests.isAsked.bind(requests);
  const onPlaced = requests.placed.bind(requests);
  const placer = new QemuPagePlacer({ ...options, isAsked, onPlaced });
  return { blocks: section.blocks, placer, requests, shut, close };
}

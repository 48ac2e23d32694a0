/**
 * Which pages to send along with one that a vCPU waits for. A guest that reads on through its memory
 * would otherwise wait once a page; one that jumps about must not be made to wait for pages that it
 * does not want.
 *
 *   fault ── goes on with a stream? ── yes ─▶ the stream's window doubles, pages ahead of it
 *                                   └─ no ──▶ a new stream: a few pages around the fault
 *
 * Nearest pages first, so that whatever is cut off by the budget is what matters least. Pure: the
 * streams come in and go out. Pages count from the start of a block; streams of one block do not
 * touch another.
 */

/** A run of faults, as far as it was followed. */
export interface PrefetchStream {
  readonly block: number;
  /** The page that is expected next: behind everything that was sent for the stream. */
  readonly nextPage: number;
  readonly windowPages: number;
}

export interface PrefetchInput {
  readonly block: number;
  readonly page: number;
  readonly blockPages: number;
  /** Most recently used first. */
  readonly streams: readonly PrefetchStream[];
  /** What may be sent beyond the page itself. */
  readonly budgetPages: number;
  /** Not sent yet, and not asked for. */
  readonly isMissing: (page: number) => boolean;
}

export interface PrefetchPlan {
  /** In the order in which they are to be sent; the page that is waited for is not among them. */
  readonly pages: readonly number[];
  readonly streams: readonly PrefetchStream[];
}

/** vCPUs and kernel threads that read on at the same time. */
const STREAMS_MAX = 16;
const WINDOW_PAGES_MIN = 8;
const WINDOW_PAGES_MAX = 128;
/** Share of a new stream's window that lies before the fault: stacks grow downwards. */
const BEHIND_SHARE = 0.25;

export function planPrefetch(input: PrefetchInput): PrefetchPlan {
  const stream = input.streams.find((each) => goesOnWith(each, input));
  return stream === undefined ? beginStream(input) : continueStream(input, stream);
}

export interface PrefetchBudgetInput {
  /** Null before anything was measured. */
  readonly linkBytesPerSecond: number | null;
  readonly roundTripMs: number;
  readonly pageBytes: number;
  /** Prefetched pages that were sent and not acknowledged yet. */
  readonly outstandingPages: number;
}

/** How long the link may be busy with pages that nobody has asked for. */
const PREFETCH_MS_MAX = 5;

/**
 * A fault that comes meanwhile waits for what is on the link already: so never more than a few
 * milliseconds of it, and on a slow link nothing at all.
 */
export function prefetchBudgetPages(input: PrefetchBudgetInput): number {
  const { linkBytesPerSecond: rate, roundTripMs, pageBytes, outstandingPages } = input;
  if (rate === null) return 0;
  // A page ahead of its fault saves a round trip: there is no point in spending longer on it.
  const ms = Math.min(PREFETCH_MS_MAX, Math.max(1, roundTripMs));
  return Math.max(0, Math.floor(((rate / 1000) * ms) / pageBytes) - outstandingPages);
}

/** At the page that comes next, or a little beyond: prefetched pages cause no fault. */
function goesOnWith(stream: PrefetchStream, { block, page }: PrefetchInput): boolean {
  const ahead = page - stream.nextPage;
  return stream.block === block && ahead >= 0 && ahead < stream.windowPages;
}

function continueStream(input: PrefetchInput, stream: PrefetchStream): PrefetchPlan {
  const { page, blockPages } = input;
  const windowPages = Math.min(stream.windowPages * 2, WINDOW_PAGES_MAX);
  const end = Math.min(blockPages, page + 1 + windowPages);
  const pages = missingOf(range(page + 1, end), input);
  const others = input.streams.filter((each) => each !== stream);
  return { pages, streams: follow(input, { windowPages, pages, others }) };
}

function beginStream(input: PrefetchInput): PrefetchPlan {
  const { page, blockPages, streams } = input;
  const behindPages = Math.floor(WINDOW_PAGES_MIN * BEHIND_SHARE);
  const aheadPages = WINDOW_PAGES_MIN - behindPages;
  const ahead = range(page + 1, Math.min(blockPages, page + 1 + aheadPages));
  const behind = range(Math.max(0, page - behindPages), page).reverse();
  const pages = missingOf([...ahead, ...behind], input);
  return {
    pages,
    streams: follow(input, { windowPages: WINDOW_PAGES_MIN, pages, others: streams }),
  };
}

function follow(
  { block, page }: PrefetchInput,
  found: {
    readonly windowPages: number;
    readonly pages: readonly number[];
    readonly others: readonly PrefetchStream[];
  },
): PrefetchStream[] {
  const { windowPages, pages, others } = found;
  // Pages on the way that were there already are passed over as well: they cause no fault either.
  const nextPage = Math.max(page, ...pages) + 1;
  return [{ block, nextPage, windowPages }, ...others].slice(0, STREAMS_MAX);
}

function missingOf(pages: readonly number[], input: PrefetchInput): number[] {
  return pages.filter((page) => input.isMissing(page)).slice(0, Math.max(0, input.budgetPages));
}

function range(start: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, index) => start + index);
}

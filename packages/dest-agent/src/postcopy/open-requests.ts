/** Pages that the dest's QEMU has asked for and does not have yet, and how long it waited for others. */
import { LatencyHistogram, type Clock } from "@vmferry/core";
import { limits } from "@vmferry/protocol";

const { REQUEST_PAGES_MAX, REQUESTS_MAX } = limits;

/** Consecutive pages of a block, as many as one REQUEST may name. */
export interface PageRequest {
  readonly block: number;
  readonly firstPage: number;
  readonly pages: number;
}

export class OpenRequests {
  /** From the first request of a page to the moment that QEMU's socket took it. */
  readonly waits: LatencyHistogram;
  readonly #clock: Clock;
  readonly #onWaited: (seconds: number) => void;
  readonly #sinceMs = new Map<number, number>();

  constructor(
    clock: Clock,
    onWaited: (seconds: number) => void,
    waits: LatencyHistogram = new LatencyHistogram(),
  ) {
    this.#clock = clock;
    this.waits = waits;
    this.#onWaited = onWaited;
  }

  get count(): number {
    return this.#sinceMs.size;
  }

  /** False when it was asked for before, or when too much is asked for: then it comes in its turn. */
  add(block: number, page: number): boolean {
    const key = keyOf(block, page);
    if (this.#sinceMs.has(key) || this.#sinceMs.size >= REQUESTS_MAX) return false;
    this.#sinceMs.set(key, this.#clock.nowMs());
    return true;
  }

  /** QEMU has the page. Tells whether it was asked for. */
  placed(block: number, page: number): boolean {
    const key = keyOf(block, page);
    const sinceMs = this.#sinceMs.get(key);
    if (sinceMs === undefined) return false;
    this.#sinceMs.delete(key);
    const waitedMs = this.#clock.nowMs() - sinceMs;
    this.waits.observe(waitedMs * 1000);
    this.#onWaited(waitedMs / 1000);
    return true;
  }

  /** All of them, those that wait longest first. */
  all(): PageRequest[] {
    return requestsOf([...this.#sinceMs.keys()].map(placeOf));
  }
}

/** As few requests as name these pages. */
export function requestsOf(
  places: readonly { readonly block: number; readonly page: number }[],
): PageRequest[] {
  const requests: { block: number; firstPage: number; pages: number }[] = [];
  for (const { block, page } of places) {
    const last = requests.at(-1);
    const goesOn =
      last?.block === block &&
      last.firstPage + last.pages === page &&
      last.pages < REQUEST_PAGES_MAX;
    if (goesOn) last.pages++;
    else requests.push({ block, firstPage: page, pages: 1 });
  }
  return requests;
}

function keyOf(block: number, page: number): number {
  return block * 2 ** 32 + page;
}

function placeOf(key: number): { readonly block: number; readonly page: number } {
  return { block: Math.floor(key / 2 ** 32), page: key % 2 ** 32 };
}

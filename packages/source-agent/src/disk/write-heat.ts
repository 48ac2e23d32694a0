/**
 * How much the link would have paid for each block of late: decaying counters, halved every two
 * seconds. 8 bytes a block.
 */
const HALF_LIFE_MS = 2000;

export class WriteHeat {
  readonly #bytes: Float32Array;
  /** Relative to the first use: single precision keeps milliseconds for hours. */
  readonly #atMs: Float32Array;
  #originMs: number | null = null;

  constructor(blocks: number) {
    this.#bytes = new Float32Array(blocks);
    this.#atMs = new Float32Array(blocks);
  }

  /** Adds and returns the heat after that. */
  add(block: number, bytes: number, nowMs: number): number {
    const heat = this.now(block, nowMs) + bytes;
    this.#bytes[block] = heat;
    this.#atMs[block] = nowMs - this.#originMs!;
    return heat;
  }

  now(block: number, nowMs: number): number {
    this.#originMs ??= nowMs;
    const elapsedMs = nowMs - this.#originMs - this.#atMs[block]!;
    return this.#bytes[block]! * 2 ** (-elapsedMs / HALF_LIFE_MS);
  }

  /** When the block was written last, as far as heat was added. */
  idleMs(block: number, nowMs: number): number {
    // The stored time is rounded, and may lie behind this very moment.
    return Math.max(0, nowMs - (this.#originMs ?? nowMs) - this.#atMs[block]!);
  }
}

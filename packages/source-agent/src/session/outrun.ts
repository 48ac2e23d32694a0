/**
 * Whether a guest outruns the link, told before the first pass is over: only then QEMU says what the
 * guest has changed. So QEMU is asked to look at samples of the guest's pages twice, a moment apart,
 * and what it finds is compared with how fast its stream is read while the link is what reading
 * waits for.
 */
import type { Clock } from "@vmferry/core";
import type { SourceQemu } from "../adapters/source-qemu.ts";

export type MeasuredQemu = Pick<SourceQemu, "measureDirtyRate" | "dirtyBytesPerSecond">;

export interface OutrunOptions {
  readonly qemu: MeasuredQemu;
  /** Of QEMU's stream, so far. */
  readonly readBytes: () => number;
  /** How long reading it has waited for the link, so far. */
  readonly waitedMs: () => number;
  readonly clock: Clock;
}

/** Of the time between two looks: with less the link is not what keeps the stream from going faster. */
const WAITED_SHARE_MIN = 0.25;

interface Look {
  readonly atMs: number;
  readonly readBytes: number;
  readonly waitedMs: number;
}

export class Outrun {
  readonly #options: OutrunOptions;
  #last: Look | null = null;
  #isPossible = true;

  constructor(options: OutrunOptions) {
    this.#options = options;
  }

  /** False while nothing is known; the first call begins to measure. Never rejects. */
  async isSeen(): Promise<boolean> {
    if (!this.#isPossible) return false;
    const { qemu, clock } = this.#options;
    const before = this.#last;
    const now = {
      atMs: clock.nowMs(),
      readBytes: this.#options.readBytes(),
      waitedMs: this.#options.waitedMs(),
    };
    this.#last = now;
    try {
      if (before === null) {
        this.#isPossible = await qemu.measureDirtyRate();
        return false;
      }
      const dirtyBytesPerSecond = await qemu.dirtyBytesPerSecond();
      // Memory that is zero is read at any speed, and takes no link.
      const elapsedMs = Math.max(1, now.atMs - before.atMs);
      const waitedShare = (now.waitedMs - before.waitedMs) / elapsedMs;
      if (dirtyBytesPerSecond === null || waitedShare < WAITED_SHARE_MIN) return false;
      return dirtyBytesPerSecond > ((now.readBytes - before.readBytes) * 1000) / elapsedMs;
    } catch {
      // Somebody else has QEMU measure, or it does not know how: the first pass goes over the link.
      this.#isPossible = false;
      return false;
    }
  }
}

/**
 * Does pre-copy still gain? Judged a pass at a time: a pass that begins with less to send than any
 * pass before is a gain. A link that is down makes no passes, so it is no stall; what it has cost is
 * forgotten when it is back.
 */
const PASSES_WITHOUT_GAIN = 4;
const MS_WITHOUT_GAIN = 10_000;
/** Less than this much better is no gain. */
const GAIN_SHARE = 0.04;

export class StallWatch {
  #leastBytes = Infinity;
  #passes = 0;
  #gainedMs: number | null = null;

  /** A pass began; `toSendBytes` = dirty at QEMU, held and queued together. */
  passBegan(toSendBytes: number, nowMs: number): void {
    this.#gainedMs ??= nowMs;
    if (toSendBytes < this.#leastBytes * (1 - GAIN_SHARE)) {
      this.#leastBytes = toSendBytes;
      this.#passes = 0;
      this.#gainedMs = nowMs;
    } else this.#passes++;
  }

  /** What came before says nothing about what comes now. */
  restart(): void {
    this.#leastBytes = Infinity;
    this.#passes = 0;
    this.#gainedMs = null;
  }

  stalled(nowMs: number): boolean {
    if (this.#gainedMs === null) return false;
    return this.#passes >= PASSES_WITHOUT_GAIN && nowMs - this.#gainedMs >= MS_WITHOUT_GAIN;
  }
}

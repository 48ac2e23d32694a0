/**
 * Compress or not? Decided by trying: the source keeps to whichever of the two moved more of the
 * guest's bytes a second on this link with these CPUs, and tries the other again now and then. So
 * compression is never slower than sending raw for longer than one trial, nor for more than a quarter
 * of one where that is evident.
 *
 * A trial counts only when the link kept the source waiting; while QEMU is the slower one, nothing
 * is learnt and raw costs nobody anything.
 */
const TRIAL_MS = 250;
/** A trial of the other way that moves so much less than the better one ends when this is evident. */
const HOPELESS_SHARE = 0.8;
const HOPELESS_MS_MIN = 60;
const TRIAL_BYTES_MIN = 1024 * 1024;
const SAMPLE_WEIGHT = 0.4;
const AGAIN_MS_MIN = 2000;
const AGAIN_MS_MAX = 30_000;

export type Compression = "raw" | "zstd";

export class CompressionChoice {
  readonly #bytesPerSecond: Record<Compression, number | null> = { raw: null, zstd: null };
  #current: Compression = "raw";
  #best: Compression = "raw";
  #startedMs: number | null = null;
  #bytes = 0;
  #waited = false;
  #againMs = AGAIN_MS_MIN;
  #triedMs = 0;
  readonly #zstdBytesPerSecondMax: number;

  /** @param zstdBytesPerSecondMax what the host could compress at best; faster links get no trial */
  constructor(zstdBytesPerSecondMax: number) {
    this.#zstdBytesPerSecondMax = zstdBytesPerSecondMax;
  }

  get current(): Compression {
    return this.#current;
  }

  /** The link took no more. */
  waited(): void {
    this.#waited = true;
  }

  /** `bytes` of the guest's data were sent, whatever they became on the wire. */
  sent(bytes: number, nowMs: number): void {
    this.#startedMs ??= nowMs;
    this.#bytes += bytes;
    const elapsedMs = nowMs - this.#startedMs;
    if (this.#bytes < TRIAL_BYTES_MIN) return;
    if (elapsedMs < TRIAL_MS && !this.#isHopeless(elapsedMs)) return;
    // Where nobody had to wait, whoever makes the data is the slower one, and nothing is learnt.
    if (this.#waited) this.#learn((this.#bytes * 1000) / elapsedMs, nowMs);
    this.#startedMs = nowMs;
    this.#bytes = 0;
    this.#waited = false;
  }

  #isHopeless(elapsedMs: number): boolean {
    const best = this.#bytesPerSecond[this.#best];
    if (this.#current === this.#best || best === null) return false;
    if (!this.#waited || elapsedMs < HOPELESS_MS_MIN) return false;
    return (this.#bytes * 1000) / elapsedMs < best * HOPELESS_SHARE;
  }

  #learn(bytesPerSecond: number, nowMs: number): void {
    const before = this.#bytesPerSecond[this.#current];
    // One slow quarter of a second, on a busy host, says little.
    this.#bytesPerSecond[this.#current] =
      before === null ? bytesPerSecond : before + (bytesPerSecond - before) * SAMPLE_WEIGHT;
    const { raw, zstd } = this.#bytesPerSecond;
    if (this.#current === "raw" && bytesPerSecond > this.#zstdBytesPerSecondMax) return;
    const other = this.#current === "raw" ? "zstd" : "raw";
    if (raw === null || zstd === null) {
      this.#try(other, nowMs);
      return;
    }
    const best = zstd > raw ? "zstd" : "raw";
    if (best !== this.#best) {
      // What was right until now is worth another look soon.
      this.#best = best;
      this.#againMs = AGAIN_MS_MIN;
      this.#triedMs = nowMs;
    }
    if (this.#current === best && nowMs - this.#triedMs >= this.#againMs) {
      this.#againMs = Math.min(this.#againMs * 2, AGAIN_MS_MAX);
      this.#try(other, nowMs);
    } else this.#current = best;
  }

  #try(other: Compression, nowMs: number): void {
    this.#triedMs = nowMs;
    this.#current = other;
  }
}

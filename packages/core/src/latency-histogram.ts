/**
 * How long something took, in buckets that grow by a quarter of an octave: a quantile is off by 19 %
 * at most, whatever the scale, and the memory is the same however much is counted.
 */
import { assert } from "./assert.ts";

const STEPS_PER_OCTAVE = 4;
/** 2^32 µs are over an hour. What takes longer counts in the last bucket. */
const BUCKETS = 32 * STEPS_PER_OCTAVE + 1;

export interface LatencyBucket {
  /** Upper bound, itself included; infinite for the last one. */
  readonly us: number;
  /** Of this bucket and all before it. */
  readonly count: number;
}

export class LatencyHistogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sumUs = 0;

  get count(): number {
    return this.#count;
  }

  get sumUs(): number {
    return this.#sumUs;
  }

  observe(us: number): void {
    assert(us >= 0, "time does not go back");
    const bucket = us <= 1 ? 0 : Math.ceil(Math.log2(us) * STEPS_PER_OCTAVE);
    this.#counts[Math.min(bucket, BUCKETS - 1)]!++;
    this.#count++;
    this.#sumUs += us;
  }

  /** The bound that a share of 0 to 1 does not exceed, in whole microseconds; null before anything was counted. */
  quantileUs(share: number): number | null {
    if (this.#count === 0) return null;
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    let bucket = 0;
    while (bucket < BUCKETS - 1 && seen + this.#counts[bucket]! < rank) {
      seen += this.#counts[bucket]!;
      bucket++;
    }
    return Math.round(boundUs(bucket));
  }

  /** Cumulative, one an octave: what a metrics endpoint shows. */
  buckets(): LatencyBucket[] {
    const buckets: LatencyBucket[] = [];
    let count = 0;
    for (let bucket = 0; bucket < BUCKETS - 1; bucket++) {
      count += this.#counts[bucket]!;
      if (bucket % STEPS_PER_OCTAVE === 0) buckets.push({ us: boundUs(bucket), count });
    }
    buckets.push({ us: Infinity, count: this.#count });
    return buckets;
  }
}

function boundUs(bucket: number): number {
  return 2 ** (bucket / STEPS_PER_OCTAVE);
}

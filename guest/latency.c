#include "latency.h"

#include <stdatomic.h>

#include "clock.h"

/* Each doubling of the time is divided into 8; below 8 microseconds each has a bucket of its own. */
enum { FRACTION_BITS = 3, FRACTIONS = 1 << FRACTION_BITS, OCTAVES = 26 };
enum { BUCKETS = OCTAVES * FRACTIONS };

#define NS_PER_US (NS_PER_MS / 1000)
#define LATENCY_US_MAX ((1ULL << (OCTAVES + FRACTION_BITS - 1)) - 1) /* some four minutes */

static _Atomic uint32_t buckets[BUCKETS];

static uint32_t bucket_of(uint64_t us) {
  if (us < FRACTIONS) return (uint32_t)us;
  uint32_t octave = 63 - (uint32_t)__builtin_clzll(us) - FRACTION_BITS;
  return (octave + 1) * FRACTIONS + ((uint32_t)(us >> octave) & (FRACTIONS - 1));
}

static uint64_t middle_of(uint32_t bucket) {
  if (bucket < FRACTIONS) return bucket;
  uint32_t octave = bucket / FRACTIONS - 1;
  uint64_t first = (uint64_t)(FRACTIONS + bucket % FRACTIONS) << octave;
  return first + (1ULL << octave) / 2;
}

void count_latency(uint64_t took_ns) {
  uint64_t us = took_ns / NS_PER_US;
  if (us > LATENCY_US_MAX) us = LATENCY_US_MAX;
  atomic_fetch_add_explicit(&buckets[bucket_of(us)], 1, memory_order_relaxed);
}

/* The time within which so many per cent of all were done. */
static uint64_t percentile(const uint32_t *counts, uint64_t all, uint32_t percent) {
  uint64_t wanted = (all * percent + 99) / 100;
  uint64_t seen = 0;
  uint32_t bucket = 0;
  for (; bucket < BUCKETS - 1; bucket++) {
    seen += counts[bucket];
    if (seen >= wanted) break;
  }
  return middle_of(bucket);
}

Latency take_latency(void) {
  uint32_t counts[BUCKETS];
  uint64_t all = 0;
  for (uint32_t i = 0; i < BUCKETS; i++) {
    counts[i] = atomic_load_explicit(&buckets[i], memory_order_relaxed);
    if (counts[i] == 0) continue; /* nearly all are, and looking costs less than taking */
    counts[i] = atomic_exchange_explicit(&buckets[i], 0, memory_order_relaxed);
    all += counts[i];
  }
  if (all == 0) return (Latency){0};
  return (Latency){.p50_us = percentile(counts, all, 50), .p99_us = percentile(counts, all, 99)};
}

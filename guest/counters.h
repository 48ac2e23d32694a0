/* What the reports say. Each counter only ever grows. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

typedef struct {
  _Atomic uint64_t writes;      /* pages rewritten */
  _Atomic uint64_t verified;    /* pages found right or wrong: before a rewrite and by the sweep */
  _Atomic uint64_t sweeps;      /* times the sweep went over all pages */
  _Atomic uint64_t errors;      /* pages with wrong content, and tables that do not add up */
  _Atomic uint64_t disk_writes; /* records written */
  _Atomic uint64_t disk_trims;  /* records trimmed or zeroed */
  _Atomic uint64_t disk_reads;  /* records read back and checked */
  _Atomic uint64_t disk_errors; /* records with wrong content */
  _Atomic uint64_t io_errors;   /* requests of any kind that failed */
} Counters;

extern Counters counters;

static inline void count(_Atomic uint64_t *counter) {
  atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline uint64_t counted(_Atomic uint64_t *counter) {
  return atomic_load_explicit(counter, memory_order_relaxed);
}

/*
 * How long the disk took for each write, as a histogram with buckets that widen with the time: no
 * allocation, no lock, one addition a write. Any thread may count, one thread takes.
 */
#pragma once

#include <stdint.h>

typedef struct {
  uint64_t p50_us;
  uint64_t p99_us;
} Latency;

void count_latency(uint64_t took_ns);

/* Of everything that was counted since the last call; 0 where nothing was. Within 7 % of the truth. */
Latency take_latency(void);

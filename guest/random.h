/* Which page or slot comes next. One state a thread, so that threads need no lock. */
#pragma once

#include <stdint.h>

typedef struct {
  uint64_t state;
} Random;

static inline Random random_from(uint64_t seed, uint64_t stream) {
  return (Random){(seed * 0x9e3779b97f4a7c15ULL + stream * 0xbf58476d1ce4e5b9ULL) | 1};
}

static inline uint32_t random_u32(Random *random) {
  uint64_t x = random->state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  random->state = x;
  return (uint32_t)((x * 0x2545f4914f6cdd1dULL) >> 32);
}

/* Evenly from 0 to limit - 1, by a multiplication: a division is slow under emulation. */
static inline uint32_t random_below(Random *random, uint32_t limit) {
  return (uint32_t)(((uint64_t)random_u32(random) * limit) >> 32);
}

/* Guest time: it stands still while the guest is held, and that is what the deadlines want. */
#pragma once

#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_SECOND 1000000000ULL

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static inline uint64_t now_ms(void) { return now_ns() / NS_PER_MS; }

static inline void sleep_until(uint64_t deadline_ns) {
  struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_SECOND),
                              .tv_nsec = (long)(deadline_ns % NS_PER_SECOND)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL) != 0) {
  }
}

/*
 * Sleeps until one period after the last deadline. Whoever has missed that one starts again from
 * now: what was missed is not made up for, or a stall would be followed by a burst.
 */
static inline void sleep_a_period(uint64_t *deadline_ns, uint64_t period_ns) {
  uint64_t now = now_ns();
  *deadline_ns += period_ns;
  if (*deadline_ns <= now) *deadline_ns = now + period_ns;
  sleep_until(*deadline_ns);
}

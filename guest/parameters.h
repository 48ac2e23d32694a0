/* What the kernel command line asks for: `vmferry.<name>=<value>`, explained in README.md. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RATE_MAX UINT32_MAX /* "max": as fast as it goes */

typedef enum {
  PLANT_NONE,
  PLANT_STALE,
  PLANT_CORRUPT,
  PLANT_DISK,
  PLANT_ZEROES,
  PLANT_PANIC,
  PLANT_LAST = PLANT_PANIC,
} Plant;

typedef struct {
  uint64_t memory_bytes; /* 0: the default, or less where that does not fit */
  uint32_t rate;         /* pages rewritten a second */
  uint32_t hot_writes_percent;
  uint32_t hot_pages_percent;
  uint32_t change_bytes; /* of a page, by one rewrite */
  uint32_t sweep_percent;
  uint32_t disk_rate;       /* records written a second; 0: the disk is not used */
  uint32_t disk_writes_max; /* in all; 0: no end */
  uint32_t disk_bytes_min;
  uint32_t disk_bytes_max; /* where it is more, records differ in size */
  uint32_t disk_threads;
  uint32_t disk_fill_percent; /* of the slots, before the work begins */
  uint32_t disk_hot_writes_percent;
  uint32_t disk_hot_slots_percent;
  uint32_t disk_trim_percent; /* of the writes, which trim or zero instead */
  uint32_t disk_sweep_reads;  /* with each write */
  uint64_t seed;
  Plant plant;
} Parameters;

Parameters read_parameters(void);

const char *plant_name(Plant plant);

#define _GNU_SOURCE
#include "memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cell.h"
#include "clock.h"
#include "console.h"
#include "counters.h"
#include "random.h"

enum {
  PAGE_BYTES = 4096,
  PAGE_CELLS = PAGE_BYTES / sizeof(Cell),
  FIRST_GENERATION = 1, /* so that an all-zero page is never right */
  PAGES_BETWEEN_LOOKS_AT_THE_CLOCK = 8,
};

/* Rewrites and sweeps come in ticks: often enough to be even, seldom enough to be cheap. */
#define TICK_NS (5 * NS_PER_MS)
#define PLANT_AFTER_NS (3 * NS_PER_SECOND)
#define DEFAULT_MEMORY_BYTES (256ULL << 20)
#define HEADROOM_BYTES (6ULL << 20) /* for the kernel and this program's other threads */

static struct {
  const Parameters *parameters;
  Cell *cells;
  uint32_t page_count;
  uint32_t hot_page_count;
  uint32_t hot_threshold; /* a rewrite is hot when a random u32 is below it */
  uint32_t group_cells;   /* cells that one rewrite changes; the last group may be shorter */
  uint32_t groups_per_page;
  uint32_t *generations; /* [page][group] */
  Random random;
  uint32_t sweep_page;      /* the next one to be swept */
  uint64_t rewrites_due_e6; /* in millionths: what the last tick could not do in whole pages */
  bool planted;
} memory;

uint32_t memory_page_count(void) { return memory.page_count; }

static uint64_t available_bytes(void) {
  FILE *file = fopen("/proc/meminfo", "r");
  char line[128];
  uint64_t kib = 0;
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) break;
  }
  if (file != NULL) fclose(file);
  return kib << 10;
}

static void *map_bytes(uint64_t bytes) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) give_up("cannot map %" PRIu64 " bytes", bytes);
  return at;
}

static Cell *cells_of_page(uint32_t page) { return memory.cells + (uint64_t)page * PAGE_CELLS; }

static uint32_t *generations_of_page(uint32_t page) {
  return memory.generations + (uint64_t)page * memory.groups_per_page;
}

static CellRun run_of_group(uint32_t page, uint32_t group) {
  uint32_t first = group * memory.group_cells;
  uint32_t left = PAGE_CELLS - first;
  return (CellRun){.place = (uint64_t)page * PAGE_CELLS + first,
                   .count = left < memory.group_cells ? left : memory.group_cells,
                   .generation = generations_of_page(page)[group]};
}

static void fill_group(uint32_t page, CellRun run) {
  fill_cells(cells_of_page(page) + run.place % PAGE_CELLS, run);
}

static void fill_page(uint32_t page) {
  for (uint32_t group = 0; group < memory.groups_per_page; group++) {
    fill_group(page, run_of_group(page, group));
  }
}

/*
 * Tells of the damage, and repairs the page: so that one damage counts once, not again with every
 * sweep.
 */
static void report_damage(uint32_t page, const CellCheck *check) {
  count(&counters.errors);
  say_error("memory page=%" PRIu32 " cell=%u kind=%s expected=%" PRIu32 " found=%" PRIu64
            " badcells=%" PRIu32,
            page, (unsigned)(check->place % PAGE_CELLS), describe_damage(check), check->generation,
            check->first->word[0], check->bad_cells);
  fill_page(page);
}

static void verify_page(uint32_t page) {
  const Cell *cells = cells_of_page(page);
  CellCheck check = {0};
  for (uint32_t group = 0; group < memory.groups_per_page; group++) {
    check_cells(cells + group * memory.group_cells, run_of_group(page, group), &check);
  }
  if (check.bad_cells > 0) report_damage(page, &check);
  count(&counters.verified);
}

static void rewrite_group(uint32_t page, uint32_t group) {
  generations_of_page(page)[group]++;
  fill_group(page, run_of_group(page, group));
  count(&counters.writes);
}

static uint32_t choose_page(void) {
  bool hot = random_u32(&memory.random) < memory.hot_threshold;
  return random_below(&memory.random, hot ? memory.hot_page_count : memory.page_count);
}

static void rewrite_some_page(void) {
  uint32_t page = choose_page();
  verify_page(page);
  rewrite_group(page, random_below(&memory.random, memory.groups_per_page));
}

/* Every rewrite raised one generation by one; nothing else does. */
static void check_table_sum(void) {
  uint64_t groups = (uint64_t)memory.page_count * memory.groups_per_page;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < groups; i++) sum += memory.generations[i];
  uint64_t writes = counted(&counters.writes);
  static uint64_t known_difference; /* told once, not with every sweep */
  uint64_t difference = sum - groups * FIRST_GENERATION - writes;
  if (difference == known_difference) return;
  known_difference = difference;
  count(&counters.errors);
  say_error("table sum=%" PRIu64 " expected=%" PRIu64, sum, groups * FIRST_GENERATION + writes);
}

static void sweep_until(uint64_t deadline_ns) {
  while (now_ns() < deadline_ns) {
    for (int i = 0; i < PAGES_BETWEEN_LOOKS_AT_THE_CLOCK; i++) {
      verify_page(memory.sweep_page);
      if (++memory.sweep_page < memory.page_count) continue;
      memory.sweep_page = 0;
      check_table_sum();
      count(&counters.sweeps);
    }
  }
}

static void rewrite_until(uint64_t deadline_ns) {
  while (now_ns() < deadline_ns) {
    for (int i = 0; i < PAGES_BETWEEN_LOOKS_AT_THE_CLOCK; i++) rewrite_some_page();
  }
}

/* As many as the rate allows for the time since the last tick; after a stall, for two ticks. */
static void rewrite_what_is_due(uint64_t elapsed_ns) {
  if (elapsed_ns > 2 * TICK_NS) elapsed_ns = 2 * TICK_NS;
  memory.rewrites_due_e6 += elapsed_ns / 1000 * memory.parameters->rate;
  uint64_t due = memory.rewrites_due_e6 / 1000000;
  memory.rewrites_due_e6 %= 1000000;
  while (due-- > 0) rewrite_some_page();
}

/* Damages one page in a way that a migration could, so that tests can see this oracle fail. */
static void plant_damage(void) {
  uint32_t page = random_below(&memory.random, memory.page_count);
  switch (memory.parameters->plant) {
    case PLANT_STALE: {
      rewrite_group(page, 0);
      CellRun run = run_of_group(page, 0);
      run.generation--;
      fill_group(page, run);
      return;
    }
    case PLANT_CORRUPT:
      cells_of_page(page)->word[random_below(&memory.random, 8)] ^=
          1ULL << random_below(&memory.random, 64);
      return;
    case PLANT_PANIC: {
      int trigger = open("/proc/sysrq-trigger", O_WRONLY);
      if (trigger < 0 || write(trigger, "c", 1) != 1) say_error("cannot make the kernel panic");
      return;
    }
    case PLANT_DISK: /* is up to the disk's threads */
    case PLANT_ZEROES:
    case PLANT_NONE:
      return;
  }
}

void *run_memory(void *unused) {
  (void)unused;
  const uint64_t sweep_ns = TICK_NS / 100 * memory.parameters->sweep_percent;
  uint64_t ready_ns = now_ns();
  uint64_t deadline_ns = ready_ns;
  for (uint64_t last_ns = ready_ns;;) {
    uint64_t tick_ns = now_ns();
    if (memory.parameters->rate == RATE_MAX) {
      rewrite_until(tick_ns + TICK_NS - sweep_ns);
    } else {
      rewrite_what_is_due(tick_ns - last_ns);
    }
    last_ns = tick_ns;
    sweep_until(now_ns() + sweep_ns);
    if (!memory.planted && tick_ns - ready_ns > PLANT_AFTER_NS) {
      memory.planted = true;
      plant_damage();
    }
    if (memory.parameters->rate != RATE_MAX) sleep_a_period(&deadline_ns, TICK_NS);
  }
  return NULL;
}

/* The pages that fit: what was asked for, or by default what leaves a quarter of a small guest. */
static uint64_t choose_memory_bytes(uint64_t asked_bytes, uint64_t table_bytes_per_page) {
  uint64_t available = available_bytes();
  uint64_t usable = available > HEADROOM_BYTES ? available - HEADROOM_BYTES : 0;
  uint64_t fits = usable / (PAGE_BYTES + table_bytes_per_page) * PAGE_BYTES;
  if (asked_bytes > fits) {
    give_up("vmferry.mem asks for %" PRIu64 " MiB, %" PRIu64 " MiB would fit", asked_bytes >> 20,
            fits >> 20);
  }
  if (asked_bytes > 0) return asked_bytes;
  uint64_t modest = fits / 4 * 3 & ~(uint64_t)(PAGE_BYTES - 1);
  return modest < DEFAULT_MEMORY_BYTES ? modest : DEFAULT_MEMORY_BYTES;
}

static void choose_hot_pages(const Parameters *parameters) {
  uint64_t hot_pages = (uint64_t)memory.page_count * parameters->hot_pages_percent / 100;
  memory.hot_page_count = hot_pages > 0 ? (uint32_t)hot_pages : 1;
  bool even = parameters->hot_writes_percent == 0 || parameters->hot_pages_percent == 0;
  memory.hot_threshold = even ? 0 : UINT32_MAX / 100 * parameters->hot_writes_percent;
}

void prepare_memory(const Parameters *parameters) {
  memory.parameters = parameters;
  memory.random = random_from(parameters->seed, 0);
  memory.group_cells = parameters->change_bytes / sizeof(Cell);
  memory.groups_per_page = (PAGE_CELLS + memory.group_cells - 1) / memory.group_cells;
  uint64_t table_bytes_per_page = memory.groups_per_page * sizeof(uint32_t);
  uint64_t bytes = choose_memory_bytes(parameters->memory_bytes, table_bytes_per_page);
  memory.page_count = (uint32_t)(bytes / PAGE_BYTES);
  if (memory.page_count == 0) give_up("the guest has no memory to spare");
  choose_hot_pages(parameters);
  memory.cells = map_bytes(bytes);
  memory.generations = map_bytes(memory.page_count * table_bytes_per_page);
  uint64_t groups = (uint64_t)memory.page_count * memory.groups_per_page;
  for (uint64_t i = 0; i < groups; i++) memory.generations[i] = FIRST_GENERATION;
  for (uint32_t page = 0; page < memory.page_count; page++) fill_page(page);
}

/*
 * The guest's only program: it works on memory and disk, checks everything that it ever wrote, and
 * tells about it on the serial console. Whoever migrates the guest can trust it to notice what the
 * migration has broken. README.md describes parameters and console protocol.
 *
 * Threads: this one says the signs of life and the reports and comes before all others; one works
 * on memory (memory.h); some work on the disk (disk.h). Should this thread be late, then the whole
 * guest was.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "cell.h"
#include "clock.h"
#include "console.h"
#include "counters.h"
#include "disk.h"
#include "latency.h"
#include "memory.h"
#include "parameters.h"
#include "slots.h"

#define SIGN_OF_LIFE_PERIOD_NS (10 * NS_PER_MS)
enum { SIGNS_PER_REPORT = 10 };

Counters counters;

enum { VALUE_BYTES_MAX = 24 };

static void format_rate(char text[VALUE_BYTES_MAX], uint32_t rate) {
  if (rate == RATE_MAX) {
    snprintf(text, VALUE_BYTES_MAX, "max");
  } else {
    snprintf(text, VALUE_BYTES_MAX, "%" PRIu32, rate);
  }
}

static void format_disk_bytes(char text[VALUE_BYTES_MAX], const Parameters *p) {
  int length = snprintf(text, VALUE_BYTES_MAX, "%" PRIu32, p->disk_bytes_min);
  if (p->disk_bytes_max == p->disk_bytes_min) return;
  snprintf(text + length, VALUE_BYTES_MAX - (size_t)length, "-%" PRIu32, p->disk_bytes_max);
}

static void say_ready(const Parameters *p) {
  char rate[VALUE_BYTES_MAX], disk_rate[VALUE_BYTES_MAX], disk_bytes[VALUE_BYTES_MAX];
  format_rate(rate, p->rate);
  format_rate(disk_rate, p->disk_rate);
  format_disk_bytes(disk_bytes, p);
  say("VF ready ms=%" PRIu64 " pages=%" PRIu32 " rate=%s hot=%" PRIu32 ":%" PRIu32
      " bytes=%" PRIu32 " sweep=%" PRIu32 " diskslots=%" PRIu32 " diskrate=%s"
      " diskwrites=%" PRIu32 " diskbytes=%s diskthreads=%" PRIu32 " diskfill=%" PRIu32
      " diskhot=%" PRIu32 ":%" PRIu32 " disktrim=%" PRIu32 " disksweep=%" PRIu32
      " seed=%" PRIu64 " plant=%s",
      now_ms(), memory_page_count(), rate, p->hot_writes_percent, p->hot_pages_percent,
      p->change_bytes, p->sweep_percent, slot_count(), disk_rate, p->disk_writes_max, disk_bytes,
      p->disk_threads, p->disk_fill_percent, p->disk_hot_writes_percent,
      p->disk_hot_slots_percent, p->disk_trim_percent, p->disk_sweep_reads, p->seed,
      plant_name(p->plant));
}

static void say_report(uint64_t sequence) {
  Latency latency = take_latency();
  say("VF seq=%" PRIu64 " ms=%" PRIu64 " pages=%" PRIu32 " writes=%" PRIu64 " verified=%" PRIu64
      " sweeps=%" PRIu64 " errors=%" PRIu64 " diskwrites=%" PRIu64 " disktrims=%" PRIu64
      " diskreads=%" PRIu64 " disksweeps=%" PRIu64 " diskerrors=%" PRIu64 " ioerrors=%" PRIu64
      " diskp50us=%" PRIu64 " diskp99us=%" PRIu64,
      sequence, now_ms(), memory_page_count(), counted(&counters.writes),
      counted(&counters.verified), counted(&counters.sweeps), counted(&counters.errors),
      counted(&counters.disk_writes), counted(&counters.disk_trims),
      counted(&counters.disk_reads), disk_sweep_count(), counted(&counters.disk_errors),
      counted(&counters.io_errors), latency.p50_us, latency.p99_us);
}

/* Real-time priority: no amount of work on memory or disk delays a sign of life. */
static void come_before_all_others(void) {
  struct sched_param priority = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0) give_up("cannot get real-time priority");
}

static void say_signs_of_life(void) {
  uint64_t deadline_ns = now_ns();
  for (uint64_t sequence = 1;; sequence++) {
    sleep_a_period(&deadline_ns, SIGN_OF_LIFE_PERIOD_NS);
    say("#%" PRIu64, sequence);
    if (sequence % SIGNS_PER_REPORT == 0) say_report(sequence);
  }
}

int main(void) {
  open_console();
  Parameters parameters = read_parameters();
  seed_cells(parameters.seed);
  prepare_disk(&parameters);
  prepare_memory(&parameters);
  say_ready(&parameters);

  pthread_t memory_thread;
  if (pthread_create(&memory_thread, NULL, run_memory, NULL) != 0) give_up("cannot start a thread");
  start_disk();
  come_before_all_others();
  say_signs_of_life();
}

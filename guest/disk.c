#include "disk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "clock.h"
#include "console.h"
#include "random.h"
#include "slots.h"

enum {
  THREADS_MAX = 8,
  WRITES_PER_FLUSH = 32,
  WRITES_PER_NEW_SLOT = 4,
};

#define PLANT_AFTER_NS (3 * NS_PER_SECOND)

typedef struct {
  uint32_t first_slot;
  uint32_t slot_count;   /* a power of two */
  uint32_t filled_count; /* at the beginning: so many from the first one on */
  uint32_t used_count;   /* in the order of slot_in_order */
  uint32_t swept_count;  /* of the used ones, in this sweep */
  _Atomic uint64_t sweeps;
  uint32_t writes_since_flush;
  Cell *record;
  Random random;
  bool plants; /* is to damage a record when the time has come */
} Worker;

static const Parameters *parameters;
static Worker workers[THREADS_MAX];
static uint32_t worker_count;
static _Atomic uint64_t begun_writes; /* counted only where there is a limit */

/*
 * An order in which neighbours are far apart, and in which the filled slots come first: an odd
 * factor visits every slot exactly once, and whoever hits the other kind goes on from there. That
 * visits each slot of its own kind exactly once as well.
 */
static uint32_t slot_in_order(const Worker *worker, uint32_t nth) {
  bool filled = nth < worker->filled_count;
  uint32_t at = nth;
  do {
    at = (at * 0x9e3779b1U) & (worker->slot_count - 1);
  } while ((at < worker->filled_count) != filled);
  return worker->first_slot + at;
}

static bool happens(Worker *worker, uint32_t percent) {
  return percent > 0 && random_below(&worker->random, 100) < percent;
}

static uint32_t some_used_slot(Worker *worker, bool hot) {
  uint64_t among = worker->used_count;
  if (hot) among = among * parameters->disk_hot_slots_percent / 100;
  return slot_in_order(worker, among == 0 ? 0 : random_below(&worker->random, (uint32_t)among));
}

/* Few writes go to new slots, so that the sweep, with as few as one read a write, gets round. */
static bool takes_new_slot(Worker *worker) {
  if (worker->used_count == worker->slot_count) return false;
  return random_below(&worker->random, WRITES_PER_NEW_SLOT) == 0;
}

static void flush_now_and_then(Worker *worker) {
  if (++worker->writes_since_flush < WRITES_PER_FLUSH) return;
  worker->writes_since_flush = 0;
  flush_disk();
}

/* Of both kinds of zeroing one half each, and together as many as TRIM. */
static void trim_or_zero(Worker *worker, uint32_t slot) {
  uint32_t kind = random_below(&worker->random, 4);
  if (kind < 2) {
    trim_slot(slot);
  } else {
    zero_slot(slot, kind == 2);
  }
}

/* What was there is checked before it is gone. */
static void write_somewhere(Worker *worker) {
  bool trims = happens(worker, parameters->disk_trim_percent);
  bool hot = happens(worker, parameters->disk_hot_writes_percent);
  bool is_first = worker->used_count == 0;
  if (is_first || (!trims && !hot && takes_new_slot(worker))) {
    write_slot(slot_in_order(worker, worker->used_count++), worker->record);
  } else {
    uint32_t slot = some_used_slot(worker, hot);
    verify_slot(slot, worker->record);
    if (trims) {
      trim_or_zero(worker, slot);
    } else {
      write_slot(slot, worker->record);
    }
  }
  flush_now_and_then(worker);
}

static bool may_write(void) {
  if (parameters->disk_writes_max == 0) return true;
  return atomic_fetch_add(&begun_writes, 1) < parameters->disk_writes_max;
}

/* When writing has ended, nothing of it stays in a cache. */
static void come_to_rest(Worker *worker) {
  if (worker->writes_since_flush == 0) return;
  worker->writes_since_flush = 0;
  flush_disk();
}

/* One read of the sweep, which goes over every record that was ever written. */
static void sweep_on(Worker *worker) {
  if (worker->used_count > 0) {
    verify_slot(slot_in_order(worker, worker->swept_count), worker->record);
  }
  if (++worker->swept_count < worker->used_count) return;
  worker->swept_count = 0;
  atomic_fetch_add_explicit(&worker->sweeps, 1, memory_order_relaxed);
}

static void plant_damage(Worker *worker) {
  uint32_t slot = some_used_slot(worker, false);
  if (parameters->plant == PLANT_DISK) {
    plant_stale_record(slot, worker->record);
  } else {
    plant_lost_zeroes(slot, worker->record);
  }
}

static void *run_worker(void *argument) {
  Worker *worker = argument;
  bool paces = parameters->disk_rate != RATE_MAX;
  uint64_t period_ns = NS_PER_SECOND * parameters->disk_threads / parameters->disk_rate;
  uint64_t ready_ns = now_ns();
  for (uint64_t deadline_ns = ready_ns;;) {
    if (may_write()) {
      write_somewhere(worker);
    } else {
      come_to_rest(worker);
    }
    for (uint32_t i = 0; i < parameters->disk_sweep_reads; i++) sweep_on(worker);
    if (worker->plants && now_ns() - ready_ns > PLANT_AFTER_NS) {
      worker->plants = false;
      plant_damage(worker);
    }
    if (paces) sleep_a_period(&deadline_ns, period_ns);
  }
  return NULL;
}

void prepare_disk(const Parameters *from) {
  parameters = from;
  if (parameters->disk_rate == 0 || access("/dev/vda", F_OK) != 0) return;
  prepare_slots(parameters);
  worker_count = parameters->disk_threads;
  uint32_t slots_each = slot_count() / worker_count;
  uint32_t filled = (uint32_t)((uint64_t)slots_each * parameters->disk_fill_percent / 100);
  bool plants = parameters->plant == PLANT_DISK || parameters->plant == PLANT_ZEROES;
  for (uint32_t i = 0; i < worker_count; i++) {
    workers[i] = (Worker){.first_slot = i * slots_each,
                          .slot_count = slots_each,
                          .filled_count = filled,
                          .used_count = filled,
                          .record = allocate_record(),
                          .random = random_from(parameters->seed, i + 1),
                          .plants = i == 0 && plants};
    fill_slots(workers[i].first_slot, filled);
  }
  if (filled > 0) flush_disk();
}

void start_disk(void) {
  for (uint32_t i = 0; i < worker_count; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_worker, &workers[i]) != 0) {
      give_up("cannot start a thread");
    }
  }
}

uint64_t disk_sweep_count(void) {
  uint64_t fewest = UINT64_MAX;
  for (uint32_t i = 0; i < worker_count; i++) {
    uint64_t sweeps = atomic_load_explicit(&workers[i].sweeps, memory_order_relaxed);
    if (sweeps < fewest) fewest = sweeps;
  }
  return worker_count == 0 ? 0 : fewest;
}

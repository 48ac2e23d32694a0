#define _GNU_SOURCE
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cell.h"
#include "clock.h"
#include "console.h"
#include "counters.h"
#include "random.h"

enum {
  THREADS_MAX = 8,
  SLOTS_MAX = 1 << 18, /* bounds the table to 1 MiB; the slots are spread over the whole disk */
  BUFFER_ALIGNMENT = 4096,
  WRITES_PER_FLUSH = 32,
  WRITES_PER_NEW_SLOT = 4,
};

#define DISK_PLACE (1ULL << 63) /* no place in memory is that high */
#define PLANT_AFTER_NS (3 * NS_PER_SECOND)

/* After a failed write nobody knows what the slot holds, until a later write succeeds. */
#define UNSURE (1U << 31)

static struct {
  const Parameters *parameters;
  int fd;
  uint32_t slot_count; /* a power of two */
  uint64_t slot_stride_bytes;
  uint32_t record_cells;
  uint32_t *generations; /* by slot */
} disk;

typedef struct {
  uint32_t first_slot;
  uint32_t slot_count; /* a power of two */
  uint32_t used_count; /* of them, in the order of slot_in_order */
  uint32_t swept_count; /* of the used ones, in this sweep */
  uint32_t writes_since_flush;
  Cell *record;
  Random random;
  bool plants; /* is to damage a record when the time has come */
} Worker;

uint32_t disk_slot_count(void) { return disk.slot_count; }

/* An order in which neighbours are far apart: an odd factor visits every slot exactly once. */
static uint32_t slot_in_order(const Worker *worker, uint32_t nth) {
  return worker->first_slot + ((nth * 0x9e3779b1U) & (worker->slot_count - 1));
}

static uint32_t some_used_slot(Worker *worker) {
  return slot_in_order(worker, random_below(&worker->random, worker->used_count));
}

/* Few writes go to new slots, so that the sweep, with one read a write, gets round. */
static bool takes_new_slot(Worker *worker) {
  if (worker->used_count == worker->slot_count) return false;
  return worker->used_count == 0 || random_below(&worker->random, WRITES_PER_NEW_SLOT) == 0;
}

static CellRun run_of_slot(uint32_t slot) {
  return (CellRun){.place = DISK_PLACE + (uint64_t)slot * disk.record_cells,
                   .count = disk.record_cells,
                   .generation = disk.generations[slot]};
}

static off_t offset_of_slot(uint32_t slot) { return (off_t)(slot * disk.slot_stride_bytes); }

/* `done` is what the system call returned. */
static bool io_succeeded(const char *what, uint32_t slot, ssize_t done) {
  if (done == (ssize_t)disk.parameters->disk_bytes) return true;
  int reason = done < 0 ? errno : EIO; /* less than a whole record is a failure as well */
  count(&counters.io_errors);
  say_error("io %s slot=%" PRIu32 " errno=%d", what, slot, reason);
  return false;
}

static bool write_record(Worker *worker, uint32_t slot, CellRun run) {
  fill_cells(worker->record, run);
  ssize_t done = pwrite(disk.fd, worker->record, disk.parameters->disk_bytes, offset_of_slot(slot));
  return io_succeeded("write", slot, done);
}

static void flush_now_and_then(Worker *worker) {
  if (++worker->writes_since_flush < WRITES_PER_FLUSH) return;
  worker->writes_since_flush = 0;
  if (fdatasync(disk.fd) == 0) return;
  count(&counters.io_errors);
  say_error("io flush errno=%d", errno);
}

static void rewrite_slot(Worker *worker, uint32_t slot) {
  uint32_t generation = (disk.generations[slot] & ~UNSURE) + 1;
  disk.generations[slot] = generation;
  bool written = write_record(worker, slot, run_of_slot(slot));
  if (!written) disk.generations[slot] = generation | UNSURE;
  count(&counters.disk_writes);
  flush_now_and_then(worker);
}

static void verify_slot(Worker *worker, uint32_t slot) {
  if ((disk.generations[slot] & UNSURE) != 0) return;
  ssize_t done = pread(disk.fd, worker->record, disk.parameters->disk_bytes, offset_of_slot(slot));
  if (!io_succeeded("read", slot, done)) return;
  CellCheck check = {0};
  check_cells(worker->record, run_of_slot(slot), &check);
  count(&counters.disk_reads);
  if (check.bad_cells == 0) return;
  count(&counters.disk_errors);
  say_error("disk slot=%" PRIu32 " cell=%u kind=%s expected=%" PRIu32 " found=%" PRIu64
            " badcells=%" PRIu32,
            slot, (unsigned)(check.first - worker->record), describe_damage(&check),
            check.generation, check.first->word[0], check.bad_cells);
  rewrite_slot(worker, slot); /* one damage counts once */
}

/* What was there is checked before it is gone. */
static void write_somewhere(Worker *worker) {
  if (takes_new_slot(worker)) {
    rewrite_slot(worker, slot_in_order(worker, worker->used_count++));
    return;
  }
  uint32_t slot = some_used_slot(worker);
  verify_slot(worker, slot);
  rewrite_slot(worker, slot);
}

/* One read of the sweep, which goes over every record that was ever written. */
static void sweep_on(Worker *worker) {
  verify_slot(worker, slot_in_order(worker, worker->swept_count));
  if (++worker->swept_count < worker->used_count) return;
  worker->swept_count = 0;
  count(&counters.disk_sweeps);
}

/* An older record in place of the newest one: what a lost or reordered write leaves behind. */
static void plant_stale_record(Worker *worker) {
  uint32_t slot = some_used_slot(worker);
  rewrite_slot(worker, slot);
  CellRun run = run_of_slot(slot);
  run.generation--;
  write_record(worker, slot, run);
}

static void *run_worker(void *argument) {
  Worker *worker = argument;
  uint64_t period_ns = NS_PER_SECOND * disk.parameters->disk_threads / disk.parameters->disk_rate;
  uint64_t ready_ns = now_ns();
  for (uint64_t deadline_ns = ready_ns;;) {
    write_somewhere(worker);
    sweep_on(worker);
    if (worker->plants && now_ns() - ready_ns > PLANT_AFTER_NS) {
      worker->plants = false;
      plant_stale_record(worker);
    }
    sleep_a_period(&deadline_ns, period_ns);
  }
  return NULL;
}

static uint32_t choose_slot_count(uint64_t disk_bytes) {
  uint64_t records = disk_bytes / disk.parameters->disk_bytes;
  uint32_t slots = SLOTS_MAX;
  while (slots > records) slots >>= 1;
  return slots;
}

void prepare_disk(const Parameters *parameters) {
  disk.parameters = parameters;
  if (parameters->disk_rate == 0 || access("/dev/vda", F_OK) != 0) return;
  disk.fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
  uint64_t disk_bytes = 0;
  if (disk.fd < 0) give_up("cannot open /dev/vda");
  if (ioctl(disk.fd, BLKGETSIZE64, &disk_bytes) != 0) give_up("/dev/vda has no size");
  disk.slot_count = choose_slot_count(disk_bytes);
  if (disk.slot_count < parameters->disk_threads) give_up("/dev/vda is too small");
  uint64_t records = disk_bytes / parameters->disk_bytes;
  disk.slot_stride_bytes = records / disk.slot_count * parameters->disk_bytes;
  disk.record_cells = parameters->disk_bytes / sizeof(Cell);
  disk.generations = calloc(disk.slot_count, sizeof *disk.generations);
  if (disk.generations == NULL) give_up("no memory for the disk's table");
}

static void start_worker(Worker *worker) {
  pthread_t thread;
  void *record;
  if (posix_memalign(&record, BUFFER_ALIGNMENT, disk.parameters->disk_bytes) != 0) {
    give_up("no memory for a disk record");
  }
  worker->record = record;
  if (pthread_create(&thread, NULL, run_worker, worker) != 0) give_up("cannot start a thread");
}

void start_disk(void) {
  static Worker workers[THREADS_MAX];
  if (disk.slot_count == 0) return;
  uint32_t slots_each = disk.slot_count / disk.parameters->disk_threads;
  for (uint32_t i = 0; i < disk.parameters->disk_threads; i++) {
    workers[i] = (Worker){.first_slot = i * slots_each,
                          .slot_count = slots_each,
                          .random = random_from(disk.parameters->seed, i + 1),
                          .plants = i == 0 && disk.parameters->plant == PLANT_DISK};
    start_worker(&workers[i]);
  }
}

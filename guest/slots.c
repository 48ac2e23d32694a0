#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "console.h"
#include "counters.h"
#include "latency.h"
#include "random.h"

enum {
  SLOTS_MAX = 1 << 18, /* bounds the table to 1 MiB; the slots are spread over the whole disk */
  BUFFER_ALIGNMENT = 4096,
  FILL_BYTES = 1 << 20, /* of one request */
};

#define DISK_PLACE (1ULL << 63) /* no place in memory is that high */
#define SIZE_STREAM (1ULL << 32) /* of random numbers: no thread has one that high */

/*
 * What must be found in a slot: a generation, with one of these flags or none. The generation counts
 * on below a flag, so that no content comes twice.
 */
#define UNSURE (1U << 31) /* after a TRIM or a failed write, until a later write succeeds */
#define ZEROED (1U << 30) /* reads as zeroes */
#define GENERATION (ZEROED - 1)

static struct {
  const Parameters *parameters;
  int fd;
  uint32_t slot_count;
  uint32_t size_count; /* of the sizes that a record can have */
  uint64_t slot_stride_bytes;
  uint32_t *states; /* by slot */
} disk;

uint32_t slot_count(void) { return disk.slot_count; }

/* The smallest size, doubled as often as chance has it for this slot. */
static uint32_t bytes_of_slot(uint32_t slot) {
  uint32_t bytes_min = disk.parameters->disk_bytes_min;
  if (disk.size_count == 1) return bytes_min;
  Random random = random_from(disk.parameters->seed, SIZE_STREAM + slot);
  return bytes_min << random_below(&random, disk.size_count);
}

static CellRun run_of_slot(uint32_t slot) {
  uint32_t cells_max = disk.parameters->disk_bytes_max / sizeof(Cell);
  bool zeroed = (disk.states[slot] & ZEROED) != 0;
  return (CellRun){.place = DISK_PLACE + (uint64_t)slot * cells_max,
                   .count = bytes_of_slot(slot) / sizeof(Cell),
                   .generation = zeroed ? ZEROES : disk.states[slot] & GENERATION};
}

static off_t offset_of_slot(uint32_t slot) { return (off_t)(slot * disk.slot_stride_bytes); }

/* ZEROES is skipped when the generations are used up. */
static uint32_t next_generation(uint32_t slot) {
  uint32_t generation = disk.states[slot] & GENERATION;
  return generation == GENERATION ? 1 : generation + 1;
}

static void tell_io_error(const char *what, uint32_t slot, int reason) {
  count(&counters.io_errors);
  say_error("io %s slot=%" PRIu32 " errno=%d", what, slot, reason);
}

/* `done` is what read or write returned. */
static bool io_succeeded(const char *what, uint32_t slot, ssize_t done) {
  if (done == (ssize_t)bytes_of_slot(slot)) return true;
  /* Less than a whole record is a failure as well. */
  tell_io_error(what, slot, done < 0 ? errno : EIO);
  return false;
}

static bool write_record(uint32_t slot, CellRun run, Cell *record) {
  fill_cells(record, run);
  uint64_t begun_ns = now_ns();
  ssize_t done = pwrite(disk.fd, record, bytes_of_slot(slot), offset_of_slot(slot));
  count_latency(now_ns() - begun_ns);
  return io_succeeded("write", slot, done);
}

void write_slot(uint32_t slot, Cell *record) {
  uint32_t generation = next_generation(slot);
  disk.states[slot] = generation;
  bool written = write_record(slot, run_of_slot(slot), record);
  if (!written) disk.states[slot] = generation | UNSURE;
  count(&counters.disk_writes);
}

void trim_slot(uint32_t slot) {
  disk.states[slot] = next_generation(slot) | UNSURE;
  uint64_t range[2] = {(uint64_t)offset_of_slot(slot), bytes_of_slot(slot)};
  if (ioctl(disk.fd, BLKDISCARD, range) != 0) tell_io_error("trim", slot, errno);
  count(&counters.disk_trims);
}

static int zero_range(uint32_t slot, bool may_unmap) {
  off_t offset = offset_of_slot(slot);
  uint32_t bytes = bytes_of_slot(slot);
  if (may_unmap) {
    return fallocate(disk.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
  }
  uint64_t range[2] = {(uint64_t)offset, bytes};
  return ioctl(disk.fd, BLKZEROOUT, range);
}

void zero_slot(uint32_t slot, bool may_unmap) {
  uint32_t generation = next_generation(slot);
  bool zeroed = zero_range(slot, may_unmap) == 0;
  if (!zeroed) tell_io_error("zero", slot, errno);
  disk.states[slot] = generation | (zeroed ? ZEROED : UNSURE);
  count(&counters.disk_trims);
}

void verify_slot(uint32_t slot, Cell *record) {
  if ((disk.states[slot] & UNSURE) != 0) return;
  ssize_t done = pread(disk.fd, record, bytes_of_slot(slot), offset_of_slot(slot));
  if (!io_succeeded("read", slot, done)) return;
  CellRun run = run_of_slot(slot);
  CellCheck check = {0};
  if (run.generation == ZEROES) {
    check_zeroes(record, run, &check);
  } else {
    check_cells(record, run, &check);
  }
  count(&counters.disk_reads);
  if (check.bad_cells == 0) return;
  count(&counters.disk_errors);
  say_error("disk slot=%" PRIu32 " cell=%u kind=%s expected=%" PRIu32 " found=%" PRIu64
            " badcells=%" PRIu32,
            slot, (unsigned)(check.first - record), describe_damage(&check), check.generation,
            check.first->word[0], check.bad_cells);
  write_slot(slot, record);
}

void flush_disk(void) {
  if (fdatasync(disk.fd) == 0) return;
  count(&counters.io_errors);
  say_error("io flush errno=%d", errno);
}

void plant_stale_record(uint32_t slot, Cell *record) {
  write_slot(slot, record);
  write_slot(slot, record); /* or the slot's first record would have none before it */
  CellRun run = run_of_slot(slot);
  run.generation--;
  write_record(slot, run, record);
}

void plant_lost_zeroes(uint32_t slot, Cell *record) {
  write_slot(slot, record);
  CellRun run = run_of_slot(slot);
  zero_slot(slot, false);
  write_record(slot, run, record);
}

static void *allocate_aligned(size_t bytes) {
  void *buffer;
  if (posix_memalign(&buffer, BUFFER_ALIGNMENT, bytes) != 0) give_up("no memory for the disk");
  return buffer;
}

Cell *allocate_record(void) { return allocate_aligned(disk.parameters->disk_bytes_max); }

/* As many records as lie side by side without a gap go into one request. */
void fill_slots(uint32_t first, uint32_t count) {
  const uint32_t bytes_max = disk.parameters->disk_bytes_max;
  const bool have_gaps = disk.size_count > 1 || disk.slot_stride_bytes != bytes_max;
  const uint32_t at_once_max = have_gaps ? 1 : FILL_BYTES / bytes_max;
  Cell *buffer = allocate_aligned((size_t)at_once_max * bytes_max);
  for (uint32_t done = 0; done < count;) {
    uint32_t slot = first + done;
    uint32_t at_once = count - done < at_once_max ? count - done : at_once_max;
    for (uint32_t i = 0; i < at_once; i++) disk.states[slot + i] = next_generation(slot + i);
    CellRun run = run_of_slot(slot);
    run.count *= at_once; /* places go on from slot to slot as the disk does */
    fill_cells(buffer, run);
    size_t bytes = run.count * sizeof(Cell);
    if (pwrite(disk.fd, buffer, bytes, offset_of_slot(slot)) != (ssize_t)bytes) {
      give_up("cannot fill /dev/vda");
    }
    done += at_once;
  }
  free(buffer);
}

static uint32_t choose_slot_count(uint64_t records) {
  uint32_t slots = SLOTS_MAX;
  while (slots > records) slots >>= 1;
  return slots;
}

void prepare_slots(const Parameters *parameters) {
  disk.parameters = parameters;
  disk.fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
  uint64_t disk_bytes = 0;
  if (disk.fd < 0) give_up("cannot open /dev/vda");
  if (ioctl(disk.fd, BLKGETSIZE64, &disk_bytes) != 0) give_up("/dev/vda has no size");
  uint64_t records = disk_bytes / parameters->disk_bytes_max;
  disk.slot_count = choose_slot_count(records);
  if (disk.slot_count < parameters->disk_threads) give_up("/dev/vda is too small");
  disk.slot_stride_bytes = records / disk.slot_count * parameters->disk_bytes_max;
  disk.size_count = 1;
  while (parameters->disk_bytes_min << disk.size_count <= parameters->disk_bytes_max) {
    disk.size_count++;
  }
  disk.states = calloc(disk.slot_count, sizeof *disk.states);
  if (disk.states == NULL) give_up("no memory for the disk's table");
}

#include "parameters.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"

enum { CMDLINE_BYTES_MAX = 4096 };

static const char PREFIX[] = "vmferry.";
static const char *const PLANT_NAMES[PLANT_LAST + 1] = {"none", "stale",  "corrupt",
                                                       "disk", "zeroes", "panic"};

const char *plant_name(Plant plant) { return PLANT_NAMES[plant]; }

/* A decimal number at the start of `text`; `rest` is what follows it. */
static uint64_t parse_number(const char *name, const char *text, const char **rest) {
  char *end;
  errno = 0;
  uint64_t number = strtoull(text, &end, 10);
  if (end == text || errno != 0 || *text == '-') give_up("vmferry.%s=%s is no number", name, text);
  *rest = end;
  return number;
}

static uint64_t parse_bytes(const char *name, const char *text) {
  const char *unit;
  uint64_t number = parse_number(name, text, &unit);
  if (strcmp(unit, "") == 0) return number;
  if (strcmp(unit, "K") == 0) return number << 10;
  if (strcmp(unit, "M") == 0) return number << 20;
  if (strcmp(unit, "G") == 0) return number << 30;
  give_up("vmferry.%s=%s: a size ends in K, M, G or nothing", name, text);
}

static uint32_t parse_in_range(const char *name, const char *text, uint32_t min, uint32_t max) {
  uint64_t number = parse_bytes(name, text);
  if (number < min || number > max) {
    give_up("vmferry.%s=%s is not in %u to %u", name, text, min, max);
  }
  return (uint32_t)number;
}

static uint32_t parse_multiple(const char *name, const char *text, uint32_t unit, uint32_t max) {
  uint32_t number = parse_in_range(name, text, unit, max);
  if (number % unit != 0) give_up("vmferry.%s=%s is no multiple of %u", name, text, unit);
  return number;
}

static uint32_t parse_percent(const char *name, const char *text) {
  return parse_in_range(name, text, 0, 100);
}

static uint32_t parse_rate(const char *name, const char *text, uint32_t max) {
  return strcmp(text, "max") == 0 ? RATE_MAX : parse_in_range(name, text, 0, max);
}

/* Percent of the writes, and percent of the places that they go to. */
static void parse_hot(const char *name, const char *text, uint32_t *writes, uint32_t *places) {
  const char *rest;
  uint64_t first = parse_number(name, text, &rest);
  uint64_t second = *rest == ':' ? parse_number(name, rest + 1, &rest) : 101;
  if (*rest != '\0' || first > 100 || second > 100) {
    give_up("vmferry.%s=%s: expected two percentages such as 90:2", name, text);
  }
  *writes = (uint32_t)first;
  *places = (uint32_t)second;
}

/* One size, or a smallest and a largest one. */
static void parse_disk_bytes(const char *text, Parameters *to) {
  char smallest[32];
  const char *dash = strchr(text, '-');
  size_t length = dash == NULL ? strlen(text) : (size_t)(dash - text);
  if (length >= sizeof smallest) give_up("vmferry.diskbytes=%s is no size", text);
  memcpy(smallest, text, length);
  smallest[length] = '\0';
  const char *largest = dash == NULL ? smallest : dash + 1;
  to->disk_bytes_min = parse_multiple("diskbytes", smallest, 512, 1 << 20);
  to->disk_bytes_max = parse_multiple("diskbytes", largest, 512, 1 << 20);
  if (to->disk_bytes_min > to->disk_bytes_max) {
    give_up("vmferry.diskbytes=%s: the smaller size comes first", text);
  }
}

static Plant parse_plant(const char *text) {
  for (Plant plant = PLANT_NONE; plant <= PLANT_LAST; plant++) {
    if (strcmp(text, PLANT_NAMES[plant]) == 0) return plant;
  }
  give_up("vmferry.plant=%s: expected none, stale, corrupt, disk, zeroes or panic", text);
}

static uint32_t parse_disk_threads(const char *text) {
  uint32_t threads = parse_in_range("diskthreads", text, 1, 8);
  bool is_power_of_two = (threads & (threads - 1)) == 0;
  if (!is_power_of_two) give_up("vmferry.diskthreads=%s: expected 1, 2, 4 or 8", text);
  return threads;
}

/* True where the name is one of the disk's. */
static bool set_disk_parameter(const char *name, const char *value, Parameters *to) {
  if (strcmp(name, "diskrate") == 0) {
    to->disk_rate = parse_rate(name, value, 1000000);
  } else if (strcmp(name, "diskwrites") == 0) {
    to->disk_writes_max = parse_in_range(name, value, 0, UINT32_MAX);
  } else if (strcmp(name, "diskbytes") == 0) {
    parse_disk_bytes(value, to);
  } else if (strcmp(name, "diskthreads") == 0) {
    to->disk_threads = parse_disk_threads(value);
  } else if (strcmp(name, "diskfill") == 0) {
    to->disk_fill_percent = parse_percent(name, value);
  } else if (strcmp(name, "diskhot") == 0) {
    parse_hot(name, value, &to->disk_hot_writes_percent, &to->disk_hot_slots_percent);
  } else if (strcmp(name, "disktrim") == 0) {
    to->disk_trim_percent = parse_percent(name, value);
  } else if (strcmp(name, "disksweep") == 0) {
    to->disk_sweep_reads = parse_in_range(name, value, 1, 64);
  } else {
    return false;
  }
  return true;
}

/* A name that is not known is refused: a test with a misspelt parameter would test nothing. */
static void set_parameter(const char *name, const char *value, Parameters *to) {
  if (set_disk_parameter(name, value, to)) return;
  if (strcmp(name, "mem") == 0) {
    to->memory_bytes = parse_bytes(name, value) & ~4095ULL;
    if (to->memory_bytes == 0) give_up("vmferry.mem=%s is less than a page", value);
  } else if (strcmp(name, "rate") == 0) {
    to->rate = parse_rate(name, value, 10000000);
  } else if (strcmp(name, "hot") == 0) {
    parse_hot(name, value, &to->hot_writes_percent, &to->hot_pages_percent);
  } else if (strcmp(name, "bytes") == 0) {
    to->change_bytes = parse_multiple(name, value, 64, 4096);
  } else if (strcmp(name, "sweep") == 0) {
    to->sweep_percent = parse_percent(name, value);
  } else if (strcmp(name, "seed") == 0) {
    to->seed = parse_bytes(name, value);
  } else if (strcmp(name, "plant") == 0) {
    to->plant = parse_plant(value);
  } else {
    give_up("vmferry.%s is not a parameter", name);
  }
}

static void read_command_line(char *text) {
  FILE *file = fopen("/proc/cmdline", "r");
  if (file == NULL) give_up("cannot read /proc/cmdline");
  size_t length = fread(text, 1, CMDLINE_BYTES_MAX - 1, file);
  fclose(file);
  text[length] = '\0';
}

Parameters read_parameters(void) {
  Parameters parameters = {.rate = 2000,
                           .hot_writes_percent = 90,
                           .hot_pages_percent = 2,
                           .change_bytes = 4096,
                           .sweep_percent = 25,
                           .disk_bytes_min = 4096,
                           .disk_bytes_max = 4096,
                           .disk_threads = 1,
                           .disk_sweep_reads = 1,
                           .seed = 1};
  char text[CMDLINE_BYTES_MAX];
  read_command_line(text);
  char *rest = NULL;
  for (char *word = strtok_r(text, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
    if (strncmp(word, PREFIX, sizeof PREFIX - 1) != 0) continue;
    char *name = word + sizeof PREFIX - 1;
    char *value = strchr(name, '=');
    if (value == NULL) give_up("%s has no value", word);
    *value++ = '\0';
    set_parameter(name, value, &parameters);
  }
  return parameters;
}

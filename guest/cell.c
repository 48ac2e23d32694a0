#include "cell.h"

static uint64_t cell_seed;

void seed_cells(uint64_t seed) { cell_seed = seed * 0x9e3779b97f4a7c15ULL; }

/* The first word of noise. Neighbouring places and generations must have nothing in common. */
static inline uint64_t first_noise(uint64_t place, uint64_t generation) {
  uint64_t x = cell_seed + place * 0xbf58476d1ce4e5b9ULL;
  x ^= generation ^ (x >> 32);
  x *= 0x94d049bb133111ebULL;
  return (x ^ (x >> 29)) | 1; /* xorshift would stay at zero for ever */
}

/* xorshift64: each word of noise follows from the one before it. */
static inline uint64_t next_noise(uint64_t x) {
  x ^= x << 13;
  x ^= x >> 7;
  return x ^ (x << 17);
}

static inline void fill_cell(Cell *cell, uint64_t place, uint64_t generation) {
  uint64_t *word = cell->word;
  uint64_t noise = first_noise(place, generation);
  word[0] = generation;
  word[1] = place;
  word[2] = CELL_MARK;
  word[3] = 0;
  word[4] = noise;
  word[5] = noise = next_noise(noise);
  word[6] = noise = next_noise(noise);
  word[7] = next_noise(noise);
}

/* Every one of the 512 bits is compared; one branch a cell. */
static inline bool cell_is(const Cell *cell, uint64_t place, uint64_t generation) {
  const uint64_t *word = cell->word;
  uint64_t noise = first_noise(place, generation);
  uint64_t difference = (word[0] ^ generation) | (word[1] ^ place);
  difference |= (word[2] ^ CELL_MARK) | word[3];
  difference |= word[4] ^ noise;
  noise = next_noise(noise);
  difference |= word[5] ^ noise;
  noise = next_noise(noise);
  difference |= word[6] ^ noise;
  noise = next_noise(noise);
  difference |= word[7] ^ noise;
  return difference == 0;
}

void fill_cells(Cell *cells, CellRun run) {
  for (uint32_t i = 0; i < run.count; i++) fill_cell(&cells[i], run.place + i, run.generation);
}

static void note_bad_cell(const Cell *cells, CellRun run, uint32_t nth, CellCheck *check) {
  if (check->bad_cells++ > 0) return;
  check->first = &cells[nth];
  check->place = run.place + nth;
  check->generation = run.generation;
}

void check_cells(const Cell *cells, CellRun run, CellCheck *check) {
  for (uint32_t i = 0; i < run.count; i++) {
    if (cell_is(&cells[i], run.place + i, run.generation)) continue;
    note_bad_cell(cells, run, i, check);
  }
}

static bool is_zero(const Cell *cell) {
  uint64_t all = 0;
  for (int i = 0; i < 8; i++) all |= cell->word[i];
  return all == 0;
}

void check_zeroes(const Cell *cells, CellRun run, CellCheck *check) {
  for (uint32_t i = 0; i < run.count; i++) {
    if (!is_zero(&cells[i])) note_bad_cell(cells, run, i, check);
  }
}

const char *describe_damage(const CellCheck *check) {
  const Cell *cell = check->first;
  if (is_zero(cell)) return "zero";
  if (!cell_is(cell, cell->word[1], cell->word[0])) return "corrupt";
  if (cell->word[1] != check->place) return "misplaced";
  bool earlier = check->generation == ZEROES || cell->word[0] < check->generation;
  return earlier ? "stale" : "ahead";
}

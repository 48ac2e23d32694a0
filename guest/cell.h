/*
 * A cell: 64 bytes whose whole content follows from three numbers, so that it can be checked by
 * nothing but those numbers. Pages of memory and records on the disk are arrays of cells.
 *
 *   word 0     generation   how often this cell was written, 1 the first time
 *   word 1     place        where this cell belongs; memory and disk places never overlap
 *   word 2     CELL_MARK    constant
 *   word 3     zero         constant
 *   words 4-7  noise        derived from (seed, place, generation)
 *
 * Half of it is noise and half is regular: a page compresses to a little more than half.
 * Only shifts, xors and two multiplications a cell: the emulated processor is slow at the rest.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CELL_MARK 0x76666572727963ffULL

typedef struct {
  uint64_t word[8];
} Cell;

_Static_assert(sizeof(Cell) == 64, "a cell is 64 bytes");

/* The generation of cells that must be zero. No cell that was written has it. */
#define ZEROES 0

/* Cells that follow one another and were written at one time. */
typedef struct {
  uint64_t place; /* of the first cell; the next one has place + 1 */
  uint32_t count;
  uint32_t generation; /* or ZEROES */
} CellRun;

/* What a check of one or several runs found. */
typedef struct {
  uint32_t bad_cells;
  const Cell *first; /* the first bad cell, and what should have been there: */
  uint64_t place;
  uint32_t generation;
} CellCheck;

/* Every guest of one test can be given content of its own. Call before anything else. */
void seed_cells(uint64_t seed);

/* Of any generation but ZEROES. */
void fill_cells(Cell *cells, CellRun run);

/* Adds what is wrong with these cells to `check`. */
void check_cells(const Cell *cells, CellRun run, CellCheck *check);

/* The same where all of them must be zero: the run's generation is ZEROES. */
void check_zeroes(const Cell *cells, CellRun run, CellCheck *check);

/*
 * What kind of damage the first bad cell shows:
 *   zero       nothing but zeros: the page never arrived
 *   stale      what was right at an earlier generation, or before it was zeroed: an older copy won
 *   ahead      what will be right at a later generation: the table of generations is the older one
 *   misplaced  right, but for another place
 *   corrupt    never written by this program
 */
const char *describe_damage(const CellCheck *check);

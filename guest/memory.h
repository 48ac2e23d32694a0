/*
 * The memory under test: pages that are rewritten at a set rate and checked all the time.
 *
 * A page is 64 cells. A rewrite changes one group of cells, so that as many bytes change as the
 * parameters say. For each group a table holds the generation that must be found: a page that is
 * right in itself but older than it should be is noticed as well as a corrupt one. The sum of the
 * table must equal what was written, so that page and table cannot be stale together either.
 *
 * One thread does all of it; nobody else touches pages or table.
 */
#pragma once

#include "parameters.h"

/* Allocates and fills. Gives up where the guest has too little memory. */
void prepare_memory(const Parameters *parameters);

uint32_t memory_page_count(void);

/* A thread's main function; runs for ever. */
void *run_memory(void *unused);

/*
 * The work on the disk (slots.h). Each step of a thread writes one record, or trims or zeroes it,
 * and reads back others. The reads sweep over all records that were ever written, and a record that
 * is to be replaced is read first: no damage goes unnoticed.
 *
 * Several threads may share the disk, each with slots of its own: they are what keeps several
 * requests in flight. They are apart from the memory's thread and from the signs of life, because
 * a disk that does not answer must be seen as just that.
 */
#pragma once

#include "parameters.h"

/* Opens the disk where there is one and the parameters want it used, and fills it. */
void prepare_disk(const Parameters *parameters);

void start_disk(void);

/* How often every thread has swept over all its records: where it has grown by 2, all were read. */
uint64_t disk_sweep_count(void);

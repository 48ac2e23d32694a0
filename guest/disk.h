/*
 * The disk under test: /dev/vda, divided into slots. A slot holds one record, an array of cells
 * like a page. Each step writes one record and reads back another, past every cache (O_DIRECT);
 * a table in memory tells which generation must be found. The reads sweep over all records that
 * were ever written, and a record that is to be replaced is read first: no damage goes unnoticed.
 *
 * Several threads may share the disk, each with slots of its own: they are what keeps several
 * requests in flight. They are apart from the memory's thread and from the signs of life, because
 * a disk that does not answer must be seen as just that.
 */
#pragma once

#include "parameters.h"

/* Opens the disk where there is one and the parameters want it used. */
void prepare_disk(const Parameters *parameters);

/* Slots over the whole disk, 0 where it is not used. */
uint32_t disk_slot_count(void);

void start_disk(void);

/*
 * The disk under test, /dev/vda, as slots, and what each of them must hold. A slot holds one
 * record, an array of cells like a page; the slots are spread evenly over the whole disk. Records
 * may differ in size: then it follows from slot and seed, as everything else does.
 *
 * One word a slot tells what must be found there: the generation of the record, that it must read
 * as zeroes, or that nobody knows. Everything goes past the guest's cache (O_DIRECT).
 *
 * A slot belongs to one thread; different slots may be worked on at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cell.h"
#include "parameters.h"

/* Opens the disk and lays it out. Gives up where the disk is too small for the threads. */
void prepare_slots(const Parameters *parameters);

/* A power of two; 0 where the disk is not used. */
uint32_t slot_count(void);

/* Writes that many slots for the first time, in the order of the disk and with large requests. */
void fill_slots(uint32_t first, uint32_t count);

/* A buffer with room for any record. */
Cell *allocate_record(void);

void write_slot(uint32_t slot, Cell *record);

/* TRIM: afterwards nobody knows what the slot holds, until it is written again. */
void trim_slot(uint32_t slot);

/* Afterwards it reads as zeroes. Space may be given back for them with `may_unmap` only. */
void zero_slot(uint32_t slot, bool may_unmap);

/* Reads a slot. Damage is told, counted, and put right: so that one damage counts once. */
void verify_slot(uint32_t slot, Cell *record);

void flush_disk(void);

/* An older record in place of the newest one: what a lost or reordered write leaves behind. */
void plant_stale_record(uint32_t slot, Cell *record);

/* The same where zeroes should be. */
void plant_lost_zeroes(uint32_t slot, Cell *record);

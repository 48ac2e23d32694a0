/** Every limit of a page file, in one place. `docs/page-file.md` repeats them. */

export const PAGE_FILE_VERSION = 1;
export const PAGE_BYTES = 4096;
/** Records, and what is sealed in them, begin and are long in multiples of this. */
export const ALIGNMENT_BYTES = 16;
/** 32 TiB. What a reader keeps, 8 bytes a page, is bounded by what it expects. */
export const PAGES_MAX = 2 ** 33;
/** So that a place and a length fit the 53 bits of a number. */
export const FILE_BYTES_MAX = 2 ** 47;
export const HEADER_BYTES_MAX = 160 * 1024;
export const RAM_BLOCKS_MAX = 256;
/** A guest's or RAM block's name, in UTF-8. */
export const NAME_BYTES_MAX = 512;
export const RECORD_HEAD_BYTES = 32;
export const ENTRY_BYTES = 12;
export const BATCH_ENTRIES_MAX = 4096;
/** Sealed pages of one batch. */
export const BATCH_DATA_BYTES_MAX = 4 * 2 ** 20;
/** Pages of one batch, zero ones included: what a reader takes in without a pause. */
export const BATCH_PAGES_MAX = 2 ** 18;

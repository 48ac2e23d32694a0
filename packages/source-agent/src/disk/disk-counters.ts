/** What became of a disk's bytes, as the migration object shows it. */
export interface DiskCounters {
  copiedBytes: number;
  zeroBytes: number;
  unchangedBytes: number;
  mirroredBytes: number;
  savedBytes: number;
}

export const NO_COUNTS: Readonly<DiskCounters> = {
  copiedBytes: 0,
  zeroBytes: 0,
  unchangedBytes: 0,
  mirroredBytes: 0,
  savedBytes: 0,
};

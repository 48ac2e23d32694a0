import { limits } from "@vmferry/protocol";

const { DISK_BLOCK_BYTES_MAX, DISK_BLOCK_BYTES_MIN } = limits;
/** What is kept a block (heat and marks, some 9 bytes) stays within 9 MiB up to 1 TiB. */
const BLOCKS_MAX = 2 ** 20;

/** 64 KiB for disks up to 64 GiB, then twice as much for a disk twice as large, up to 1 MiB. */
export function blockBytesFor(sizeBytes: number): number {
  let blockBytes = DISK_BLOCK_BYTES_MIN;
  while (blockBytes < DISK_BLOCK_BYTES_MAX && sizeBytes / blockBytes > BLOCKS_MAX) blockBytes *= 2;
  return blockBytes;
}

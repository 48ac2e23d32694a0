/**
 * Whether what follows the last good record of a journal can be what an append left that never
 * ended. Only that may be cut off: a record that had been written whole and was damaged afterwards
 * may say that the guest was handed over, and without it both hosts would run the guest.
 *
 * An append writes one record behind the end of the file, and the next one begins when that is
 * durable. So what an append leaves when its agent or its host dies is no longer than its record,
 * and short of it: the file ends too early, or disk sectors that were not written read as zeros.
 * Anything else was damaged. (A whole record always has its first bytes and no sector of zeros; a
 * disk that loses a whole sector of a durable record, and only the last one's, is not noticed.)
 */
import {
  decodeHead,
  RECORD_BYTES_MAX,
  RECORD_HEAD_BYTES,
  type ChainLink,
} from "./journal-codec.ts";

/** The smallest part of a file that a disk writes as one. */
const SECTOR_BYTES = 512;

/** `tail` is everything from `position` of the file on; `expected` is how a record would be linked. */
export function isTornAppend(tail: Buffer, position: number, expected: ChainLink): boolean {
  // Not even a head: of no record that was ever durable, for those are longer.
  if (tail.length < RECORD_HEAD_BYTES) return true;
  const head = decodeHead(tail);
  if (head !== null) {
    const frameBytes = RECORD_HEAD_BYTES + head.payloadBytes;
    if (head.seq !== expected.seq || head.prevCrc !== expected.prevCrc) return false;
    if (tail.length !== frameBytes) return tail.length < frameBytes;
    return hasZeroSector(tail, position, frameBytes);
  }
  if (tail.length > RECORD_BYTES_MAX) return false;
  return hasZeroSector(tail, position, RECORD_HEAD_BYTES) && !holdsHead(tail);
}

/** Whether a sector, as far as it is in `tail` and begins before `end` in it, is nothing but zeros. */
function hasZeroSector(tail: Buffer, position: number, end: number): boolean {
  for (let at = 0; at < end;) {
    const next = Math.min(tail.length, at + SECTOR_BYTES - ((position + at) % SECTOR_BYTES));
    if (tail.subarray(at, next).every((byte) => byte === 0)) return true;
    at = next;
  }
  return false;
}

function holdsHead(tail: Buffer): boolean {
  for (let at = 1; at + RECORD_HEAD_BYTES <= tail.length; at++) {
    if (decodeHead(tail.subarray(at)) !== null) return true;
  }
  return false;
}

import { constants } from "node:os";
import type { Extent } from "../block-device.ts";
import { seekData, seekHole, type ByteRange } from "./libc.ts";

/** Each takes two system calls: whoever wants more asks again. */
const EXTENTS_MAX = 128;

const { EINVAL, ENOSYS, EOPNOTSUPP } = constants.errno;
const NOT_SUPPORTED = [EINVAL, ENOSYS, EOPNOTSUPP];

/**
 * Which parts of a range the file system stores. Everything is data where it cannot say: a hole
 * that is taken for data costs time, data that are taken for a hole are lost.
 */
export async function fileExtents(fd: number, range: ByteRange): Promise<readonly Extent[]> {
  const extents: Extent[] = [];
  const end = range.offset + range.length;
  let position = range.offset;
  const add = (kind: Extent["kind"], until: number): void => {
    const stop = Math.min(until, end);
    if (stop > position) extents.push({ offset: position, length: stop - position, kind });
    position = Math.max(position, stop);
  };
  try {
    while (position < end && extents.length < EXTENTS_MAX) {
      const dataStart = await seekData(fd, position);
      if (dataStart === null) {
        // A file that another program cut short has no data there either, but no hole.
        add((await seekHole(fd, end - 1)) === end - 1 ? "zero" : "data", end);
        continue;
      }
      add("zero", dataStart);
      if (position < end) add("data", (await seekHole(fd, position)) ?? end);
    }
  } catch (error) {
    if (!NOT_SUPPORTED.includes(-((error as NodeJS.ErrnoException).errno ?? 0))) throw error;
    add("data", end);
  }
  return extents;
}

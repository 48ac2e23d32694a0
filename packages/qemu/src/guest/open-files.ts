/** Files that a process has open, as the kernel knows them: a path may lead elsewhere by now. */
import { readdirSync, statSync, type BigIntStats } from "node:fs";

/**
 * Whether the process has the file open to which `path` leads now. False where that cannot be seen,
 * which needs the rights of its user.
 */
export function hasFileOpen(pid: number, path: string): boolean {
  const file = statOf(path);
  if (file === null) return false;
  return descriptorsOf(pid).some((descriptor) => {
    const open = statOf(`/proc/${pid}/fd/${descriptor}`);
    return open !== null && isSame(open, file);
  });
}

function descriptorsOf(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`);
  } catch {
    return []; // It has ended, or is not ours to look at.
  }
}

function statOf(path: string): BigIntStats | null {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return null; // Removed, or closed since it was listed.
  }
}

/** A device is the same by any of its files. */
function isSame(one: BigIntStats, other: BigIntStats): boolean {
  if (one.isBlockDevice() && other.isBlockDevice()) return one.rdev === other.rdev;
  return one.dev === other.dev && one.ino === other.ino;
}

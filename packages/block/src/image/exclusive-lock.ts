import { setOfdLock } from "./libc.ts";

/**
 * Locks a whole file, however long it becomes, for the open file of a descriptor that may write.
 * False where another open file, be it of this process, has a lock on it. The lock ends with the
 * last descriptor of the open file; no other close lets go of it, and no child of the process that
 * gets no descriptor holds it.
 */
export async function lockExclusively(fd: number): Promise<boolean> {
  try {
    await setOfdLock(fd, "write", { offset: 0, length: 0 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return false;
    throw error;
  }
}

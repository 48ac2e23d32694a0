import { lstat, unlink } from "node:fs/promises";

/** Throws where something is at `path` that is not ours to remove or to replace. */
export async function checkOwnFile(path: string): Promise<"nothing" | "file"> {
  try {
    const stats = await lstat(path);
    if (stats.isFile() && stats.uid === process.geteuid?.()) return "file";
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "nothing";
    throw error;
  }
  throw new Error(`${path} is not a regular file of this user`);
}

/** Unlinks a regular file of this user, if there is one. */
export async function removeOwnFile(path: string): Promise<void> {
  if ((await checkOwnFile(path)) === "file") await unlink(path);
}

import { messageOf } from "../cli-error.ts";

const WORDS = new Map([
  ["ENOENT", "is not there"],
  ["ENOTDIR", "is not there: something above it is no directory"],
  ["EACCES", "may not be used by this user"],
  ["EPERM", "may not be used by this user"],
  ["EROFS", "is on a read-only file system"],
  ["ENOSPC", "is on a file system that is full"],
  ["EDQUOT", "is on a file system where this user's quota is used up"],
  ["ESTALE", "is on a share that has gone: mount it again"],
]);

/** Why something about `path` failed: the system's own words name files that an operator never saw. */
export function fileTrouble(path: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException | null)?.code ?? "";
  const words = WORDS.get(code);
  return words === undefined ? messageOf(error) : `${path} ${words} (${code})`;
}

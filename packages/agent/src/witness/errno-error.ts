import { constants } from "node:os";

/** An error as the file system gives it. */
export function errnoError(code: keyof typeof constants.errno): NodeJS.ErrnoException {
  const errno = -constants.errno[code];
  return Object.assign(new Error(`${code}: injected`), { code, errno });
}

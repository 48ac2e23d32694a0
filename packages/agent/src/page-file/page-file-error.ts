import { constants } from "node:os";
import { AgentError, messageOf } from "@vmferry/core";

export type PageFileErrorDetail =
  /** There is none, or what is there is no regular file. */
  | { readonly code: "page-file-missing"; readonly path: string }
  /** No room on the share. The writer writes nothing more. */
  | { readonly code: "page-file-full"; readonly path: string; readonly reason: string }
  /** No answer in time, or none at all: a dead mount. */
  | { readonly code: "page-file-unreachable"; readonly path: string; readonly reason: string }
  /** Any other error of the file system. */
  | { readonly code: "page-file-failed"; readonly path: string; readonly reason: string }
  /** Whole, and not what was expected: another guest, migration, epoch, memory or key. */
  | { readonly code: "page-file-foreign"; readonly path: string; readonly reason: string }
  /** A newer agent wrote it. */
  | { readonly code: "page-file-too-new"; readonly path: string; readonly version: number }
  /** It does not say what a holder of the key wrote there, from `offset` on. */
  | {
      readonly code: "page-file-damaged";
      readonly path: string;
      readonly offset: number;
      readonly reason: string;
    }
  /** Shorter than it was, or than its own header. */
  | { readonly code: "page-file-truncated"; readonly path: string; readonly sizeBytes: number }
  /** The path leads to another file by now, or to none. */
  | { readonly code: "page-file-replaced"; readonly path: string }
  | { readonly code: "page-file-closed"; readonly path: string };

export class PageFileError extends AgentError<PageFileErrorDetail> {}

const FULL_ERRNOS: ReadonlySet<number> = new Set([
  constants.errno.ENOSPC,
  constants.errno.EDQUOT,
  constants.errno.EFBIG,
]);

/** As numbers, for libuv has no names for some of them. */
const UNREACHABLE_ERRNOS: ReadonlySet<number> = new Set([
  constants.errno.ESTALE,
  constants.errno.ETIMEDOUT,
  constants.errno.ECONNREFUSED,
  constants.errno.ECONNRESET,
  constants.errno.ENOTCONN,
  constants.errno.EHOSTUNREACH,
  constants.errno.ENETDOWN,
  constants.errno.ENETUNREACH,
]);

export function pageFileMissing(path: string): PageFileError {
  return new PageFileError(`there is no page file ${path}`, { code: "page-file-missing", path });
}

export function pageFileLate(path: string, timeoutMs: number): PageFileError {
  const reason = `no answer within ${timeoutMs} ms`;
  return new PageFileError(`the page file ${path} cannot be reached: ${reason}`, {
    code: "page-file-unreachable",
    path,
    reason,
  });
}

export function pageFileForeign(path: string, reason: string): PageFileError {
  return new PageFileError(`the page file ${path} is not the expected one: ${reason}`, {
    code: "page-file-foreign",
    path,
    reason,
  });
}

export function pageFileTooNew(path: string, version: number): PageFileError {
  return new PageFileError(
    `the page file ${path} was written by a newer agent (version ${version} of its format)`,
    { code: "page-file-too-new", path, version },
  );
}

export function pageFileDamaged(path: string, offset: number, reason: string): PageFileError {
  return new PageFileError(`the page file ${path} is damaged at byte ${offset}: ${reason}`, {
    code: "page-file-damaged",
    path,
    offset,
    reason,
  });
}

export function pageFileTruncated(path: string, sizeBytes: number): PageFileError {
  return new PageFileError(`the page file ${path} has become too short: ${sizeBytes} bytes`, {
    code: "page-file-truncated",
    path,
    sizeBytes,
  });
}

export function pageFileReplaced(path: string): PageFileError {
  return new PageFileError(`the page file ${path} is another one by now, or gone`, {
    code: "page-file-replaced",
    path,
  });
}

export function pageFileClosed(path: string): PageFileError {
  return new PageFileError(`the page file ${path} was closed`, { code: "page-file-closed", path });
}

/** What an error of the file system means to whoever uses the file. */
export function asPageFileError(path: string, cause: unknown): PageFileError {
  if (cause instanceof PageFileError) return cause;
  const reason = messageOf(cause);
  const errno = -((cause as NodeJS.ErrnoException).errno ?? 0);
  if (FULL_ERRNOS.has(errno)) {
    return new PageFileError(
      `there is no room for the page file ${path}: ${reason}`,
      { code: "page-file-full", path, reason },
      { cause },
    );
  }
  if (UNREACHABLE_ERRNOS.has(errno)) {
    return new PageFileError(
      `the page file ${path} cannot be reached: ${reason}`,
      { code: "page-file-unreachable", path, reason },
      { cause },
    );
  }
  return new PageFileError(
    `the page file ${path} failed: ${reason}`,
    { code: "page-file-failed", path, reason },
    { cause },
  );
}

import { constants } from "node:os";
import { AgentError, messageOf } from "@vmferry/core";

export type WitnessErrorDetail =
  /** The directory did not answer, or not in time. */
  | { readonly code: "witness-unreachable"; readonly directory: string; readonly reason: string }
  /** A file does not say what this agent wrote to such files. A person has to decide. */
  | { readonly code: "witness-damaged"; readonly path: string; readonly reason: string }
  /** The directory answers, and cannot be worked with: the file system's reasons. */
  | { readonly code: "witness-not-usable"; readonly directory: string; readonly reason: string };

export class WitnessError extends AgentError<WitnessErrorDetail> {}

/** As numbers, for libuv has no names for some of them. `EIO`: a soft mount that gave up. */
const UNREACHABLE_ERRNOS: ReadonlySet<number> = new Set([
  constants.errno.EIO,
  constants.errno.ESTALE,
  constants.errno.ETIMEDOUT,
  constants.errno.ECONNREFUSED,
  constants.errno.ECONNRESET,
  constants.errno.ENOTCONN,
  constants.errno.EHOSTUNREACH,
  constants.errno.ENETDOWN,
  constants.errno.ENETUNREACH,
]);

export function witnessUnreachable(
  directory: string,
  reason: string,
  options?: { readonly cause: unknown },
): WitnessError {
  return new WitnessError(
    `the witness in ${directory} cannot be reached: ${reason}`,
    { code: "witness-unreachable", directory, reason },
    options,
  );
}

export function witnessDamaged(path: string, reason: string): WitnessError {
  return new WitnessError(`the file ${path} of the witness is damaged: ${reason}`, {
    code: "witness-damaged",
    path,
    reason,
  });
}

/** What an error of the file system means to whoever asked the witness. */
export function asWitnessError(directory: string, cause: unknown): WitnessError {
  if (cause instanceof WitnessError) return cause;
  const reason = messageOf(cause);
  const { errno } = cause as NodeJS.ErrnoException;
  if (errno !== undefined && UNREACHABLE_ERRNOS.has(-errno)) {
    return witnessUnreachable(directory, reason, { cause });
  }
  return new WitnessError(
    `the witness in ${directory} cannot be used: ${reason}`,
    { code: "witness-not-usable", directory, reason },
    { cause },
  );
}

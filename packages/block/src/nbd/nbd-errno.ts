import { BlockError } from "../block-error.ts";

/** The error values of the protocol: its own numbers, whatever the host's may be. */
export const NbdErrno = {
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type NbdErrno = (typeof NbdErrno)[keyof typeof NbdErrno];

/** What a client is told of a failed request. Whatever is no BlockError is told as EIO. */
export function nbdErrnoOf(error: unknown): NbdErrno {
  return error instanceof BlockError ? NbdErrno[error.detail.errno] : NbdErrno.EIO;
}

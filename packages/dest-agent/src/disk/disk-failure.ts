import { BlockError } from "@vmferry/block";
import { AgentError, messageOf } from "@vmferry/core";
import { ProtocolError, type ProblemCode } from "@vmferry/protocol";

/** Why a disk does not arrive, with the code that the migration ends with. */
export class DiskError extends AgentError<{ readonly code: ProblemCode }> {}

/** A broken protocol stays what it is; everything else is the image's failure. */
export function diskFailure(id: string, error: unknown): unknown {
  if (error instanceof ProtocolError) return error;
  const full = error instanceof BlockError && error.detail.errno === "ENOSPC";
  const what = full ? "has no space left" : "failed";
  return new DiskError(
    `disk ${id} ${what} at the destination: ${messageOf(error)}`,
    { code: full ? "dest-disk-full" : "dest-disk-failed" },
    { cause: error },
  );
}

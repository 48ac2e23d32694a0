import { constants } from "node:os";
import { messageOf } from "@vmferry/core";
import { BlockError, type BlockErrno } from "../block-error.ts";

export interface FailedRequest {
  readonly operation: string;
  readonly offset: number | null;
}

const { EACCES, EDQUOT, ENOSPC, EPERM, EROFS } = constants.errno;

// By number: Node has no name for some, such as EDQUOT.
const AS_THE_GUEST_SEES_IT: ReadonlyMap<number, BlockErrno> = new Map([
  [ENOSPC, "ENOSPC"],
  [EDQUOT, "ENOSPC"],
  [EROFS, "EPERM"],
  [EACCES, "EPERM"],
  [EPERM, "EPERM"],
]);

/** What a request that failed rejects with. */
export function blockFailure({ operation, offset }: FailedRequest, cause: unknown): BlockError {
  const { errno } = cause as { readonly errno?: unknown };
  const mapped = typeof errno === "number" ? AS_THE_GUEST_SEES_IT.get(-errno) : undefined;
  return blockRefusal({ operation, offset }, mapped ?? "EIO", { text: messageOf(cause), cause });
}

/** What a request rejects with that was not carried out at all. */
export function blockRefusal(
  { operation, offset }: FailedRequest,
  errno: BlockErrno,
  why: { readonly text: string; readonly cause?: unknown },
): BlockError {
  const where = offset === null ? "" : ` at ${offset}`;
  return new BlockError(
    `${operation}${where} failed: ${why.text}`,
    { code: "block-io", errno, operation, offset },
    { cause: why.cause },
  );
}

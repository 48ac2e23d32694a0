import { AgentError } from "@vmferry/core";

/** Why a request failed, as the guest may see it. */
export type BlockErrno = "EIO" | "ENOSPC" | "EPERM" | "EINVAL" | "ENOTSUP" | "ESHUTDOWN";

export class BlockError extends AgentError<{
  readonly code: "block-io";
  readonly errno: BlockErrno;
  readonly operation: string;
  /** Where it failed; null where the whole disk is meant. */
  readonly offset: number | null;
}> {}

/** What a guest that runs at the dest still lacks, and what that makes of the source's host. */
import type { MigrationFallback, MigrationObject } from "@vmferry/protocol";
import { sumOf } from "./sum-of.ts";

export interface Following {
  readonly memoryBytes: number | null;
  /** Of those that are copied, together; null where that of one is not known. */
  readonly diskBytes: number | null;
  readonly share: MigrationFallback | null;
  /** `unknown`: the agent does not know of every disk. */
  readonly sourceHost: "needed" | "unknown" | "dispensable";
}

/** Null in every phase but post-copy. */
export function followingOf({ phase, ram, disks, fallback }: MigrationObject): Following | null {
  if (phase !== "post-copy") return null;
  const copied = disks.filter(({ mode }) => mode === "copy");
  const diskBytes = sumOf(copied.map(({ remainingBytes }) => remainingBytes));
  const share = fallback;
  return {
    ...{ memoryBytes: ram.remainingBytes, diskBytes, share },
    sourceHost: hostOf({ share, diskBytes, isMemoryKnown: ram.totalBytes !== null }),
  };
}

function hostOf({
  share,
  diskBytes,
  isMemoryKnown,
}: Pick<Following, "share" | "diskBytes"> & {
  /** Not at an agent that was started anew, which may not know of every disk either. */
  readonly isMemoryKnown: boolean;
}): Following["sourceHost"] {
  if (share !== "complete" || (diskBytes !== null && diskBytes > 0)) return "needed";
  return diskBytes === null || !isMemoryKnown ? "unknown" : "dispensable";
}

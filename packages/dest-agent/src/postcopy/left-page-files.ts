import { cleanPageFiles, type Logger } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { StunRef } from "@vmferry/protocol";

export interface LeftPageFilesOptions {
  readonly sharedDir: string;
  /** Hand-overs to this host of which it lacks nothing any more, by its own journals. */
  readonly over: readonly StunRef[];
  readonly logger: Logger;
}

/**
 * Removes files that nobody could remove when they had served, because the share was away. What is
 * somebody else's, or may still be needed here, stays: only who takes pages from a file knows that
 * it needs none. Never rejects, and may take as long as a share that hangs.
 */
export async function removeLeftPageFiles(options: LeftPageFilesOptions): Promise<void> {
  const { sharedDir, over, logger } = options;
  if (over.length === 0) return;
  try {
    const count = await cleanPageFiles(sharedDir, ({ migrationId, epoch }) =>
      over.some((stun) => stun.migrationId === migrationId && stun.epoch === epoch),
    );
    if (count > 0) logger.info({ count }, "page files that had stayed on the share are removed");
  } catch (error) {
    logger.warn({ reason: messageOf(error) }, "page files may have stayed on the share");
  }
}

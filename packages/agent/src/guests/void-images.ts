/**
 * What is left of images that a migration was filling when its agent died before anything else of the
 * guest was written down. Nothing but the mark beside such an image says what it is.
 *
 * A QEMU that was prepared has its images open, and locks them as little as any that waits: they stay
 * as whoever prepared it has made them, for nothing is written before the guest is written down.
 */
import { readdir, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import type { Logger } from "pino";
import { ImageFile, lockImage, PartialMark } from "@vmferry/block";
import { messageOf } from "@vmferry/core";

const MARK_SUFFIX = ".vmferry";
/** An image directory is not deep, and whatever lies beyond costs space and nothing else. */
const DEPTH_MAX = 8;
const ENTRIES_MAX = 100_000;

export interface VoidImagesOptions {
  readonly imageDir: string;
  /** Migrations that are not over: their images are theirs. */
  readonly active: ReadonlySet<string>;
  /** Names of images over which a QEMU may wait: they lose their marks alone. */
  readonly prepared: ReadonlySet<string>;
  readonly logger: Logger;
}

/**
 * Removes every file that is marked as being filled, that belongs to none of the `active` migrations
 * and that nobody has locked. A block device stays, and so does its mark.
 */
export async function removeVoidImages({
  imageDir,
  active,
  prepared,
  logger,
}: VoidImagesOptions): Promise<void> {
  const marks = await marksIn(imageDir).catch((error: unknown) => {
    logger.warn({ imageDir, reason: messageOf(error) }, "the images cannot be looked through");
    return [];
  });
  for (const markPath of marks) {
    const path = markPath.slice(0, -MARK_SUFFIX.length);
    try {
      if ((await voidMark(path, active)) === null) continue;
      const isPrepared = prepared.has(relative(imageDir, path));
      const migrationId = await withLock(path, async () => {
        // Only who has the lock can say what the mark is.
        const mark = await voidMark(path, active);
        if (mark === null) return null;
        if (!isPrepared) await rm(path);
        await mark.remove();
        return mark.subject.migrationId;
      });
      if (migrationId === null) continue;
      const what = isPrepared
        ? "an image that was prepared, and not filled, waits again"
        : "removed what a migration had left of an image";
      logger.warn({ path, migrationId }, what);
    } catch (error) {
      logger.warn({ path, reason: messageOf(error) }, "what is left of an image stays");
    }
  }
}

/** That of an image which nobody fills any more; null for others. */
async function voidMark(path: string, active: ReadonlySet<string>): Promise<PartialMark | null> {
  const mark = await PartialMark.read(path);
  if (!(mark instanceof PartialMark) || mark.state !== "filling") return null;
  return active.has(mark.subject.migrationId) ? null : mark;
}

/** Null for what is no file; rejects where somebody has it locked. */
async function withLock(path: string, work: () => Promise<string | null>): Promise<string | null> {
  const image = await ImageFile.open(path);
  try {
    if (image.kind !== "file") return null;
    await lockImage(image);
    return await work();
  } finally {
    await image.close();
  }
}

async function marksIn(root: string): Promise<string[]> {
  const marks: string[] = [];
  let left = ENTRIES_MAX;
  const walk = async (directory: string, depth: number): Promise<void> => {
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      if (left-- <= 0) return;
      const path = join(directory, entry.name);
      if (entry.isDirectory() && depth < DEPTH_MAX) await walk(path, depth + 1);
      if (entry.isFile() && entry.name.endsWith(MARK_SUFFIX)) marks.push(path);
    }
  };
  await walk(root, 1);
  return marks;
}

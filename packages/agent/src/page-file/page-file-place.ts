/** Where page files lie on the share, and how they go away again. */
import { join } from "node:path";
import { systemClock, type Clock } from "@vmferry/core";
import { TimedTurns } from "../witness/timed-turns.ts";
import { asPageFileError, pageFileLate } from "./page-file-error.ts";
import type { PageFiles } from "./page-files.ts";
import { SharedPageFiles } from "./shared-page-files.ts";

const NAME = /^([0-9a-zA-Z-]{1,64})\.(\d{1,16})\.pages$/;
const LISTED_MAX = 10_000;
const TIMEOUT_MS = 5000;

/** Whose a file is, by its name. */
export interface PageFileOwner {
  readonly migrationId: string;
  readonly epoch: number;
}

export interface PageFilePlaceOptions {
  readonly files?: PageFiles;
  readonly clock?: Clock;
  readonly timeoutMs?: number;
}

/** The directory is made with the first file of it. */
export function pageFilePath(sharedDir: string, { migrationId, epoch }: PageFileOwner): string {
  return join(directoryIn(sharedDir), `${migrationId}.${epoch}.pages`);
}

/** Removes the file if there is one. */
export async function removePageFile(
  path: string,
  options: PageFilePlaceOptions = {},
): Promise<void> {
  await inTime(path, options, (files) => files.remove(path));
}

/**
 * Removes what crashes left: the files of which `isOver` says so, of 10,000 at most. Returns how
 * many went.
 */
export async function cleanPageFiles(
  sharedDir: string,
  isOver: (owner: PageFileOwner) => boolean,
  options: PageFilePlaceOptions = {},
): Promise<number> {
  const directory = directoryIn(sharedDir);
  const names = await inTime(directory, options, (files) => files.list(directory, LISTED_MAX));
  let count = 0;
  for (const name of names) {
    const [, migrationId, epoch] = NAME.exec(name) ?? [];
    if (migrationId === undefined || !isOver({ migrationId, epoch: Number(epoch) })) continue;
    await removePageFile(join(directory, name), options);
    count++;
  }
  return count;
}

function directoryIn(sharedDir: string): string {
  return join(sharedDir, "vmferry-pages");
}

async function inTime<T>(
  path: string,
  options: PageFilePlaceOptions,
  work: (files: PageFiles) => Promise<T>,
): Promise<T> {
  const { files = new SharedPageFiles(), clock = systemClock, timeoutMs = TIMEOUT_MS } = options;
  const late = (): Error => pageFileLate(path, timeoutMs);
  try {
    return await new TimedTurns(clock).run(() => work(files), { timeoutMs, late });
  } catch (error) {
    throw asPageFileError(path, error);
  }
}

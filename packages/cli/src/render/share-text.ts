import { diskBytesLeft, type Migration } from "../api/migration.ts";

/**
 * What it means that all of the memory which the guest lacks is on the share. Null before that, and
 * when nothing is lacking any more.
 */
export function shareText(migration: Migration): string | null {
  const { guest, phase, ram, fallback } = migration;
  if (phase !== "post-copy" || fallback !== "complete") return null;
  const onShare = `All of the memory that ${guest} still lacks is on the share`;
  const diskBytes = diskBytesLeft(migration);
  if (diskBytes !== null && diskBytes > 0) {
    return `${onShare}; its disks still need the source's host.`;
  }
  // An agent that was started anew may not know of every disk, nor how much memory there is.
  if (diskBytes === null || ram.totalBytes === null) return `${onShare}.`;
  return `${onShare}: the source's host may be lost now.`;
}

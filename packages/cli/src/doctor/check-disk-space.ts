import { statfs } from "node:fs/promises";
import { formatBytes } from "../units/format-amount.ts";
import { nearestDirectory } from "./existing-directory.ts";
import { fileTrouble } from "./file-trouble.ts";
import { fails, passes, skips, warns, type Finding } from "./finding.ts";

const MIB = 1024 ** 2;
/** With less, journals cannot be written, and nothing may be handed over. */
const NEEDED_BYTES_MIN = 16 * MIB;
const SPARE_BYTES_MIN = 1024 * MIB;
const HINT = "Journals, consoles and copied disks need space: free some, or use another directory.";

/** Of the file systems of these directories, those that are set. */
export async function checkDiskSpace(paths: readonly (string | undefined)[]): Promise<Finding> {
  const set = paths.filter((path) => path !== undefined);
  if (set.length === 0)
    return skips("not looked at: neither a state nor an image directory was given");
  const found: { readonly path: string; readonly freeBytes: number }[] = [];
  for (const path of set) {
    try {
      const { bavail, bsize } = await statfs(await nearestDirectory(path));
      found.push({ path, freeBytes: bavail * bsize });
    } catch (error) {
      return fails(fileTrouble(path, error), HINT);
    }
  }
  const detail = found.map(({ path, freeBytes }) => `${formatBytes(freeBytes)} for ${path}`);
  const text = `free: ${detail.join(", ")}`;
  const leastBytes = Math.min(...found.map(({ freeBytes }) => freeBytes));
  if (leastBytes < NEEDED_BYTES_MIN) return fails(text, HINT);
  return leastBytes < SPARE_BYTES_MIN ? warns(text, HINT) : passes(text);
}

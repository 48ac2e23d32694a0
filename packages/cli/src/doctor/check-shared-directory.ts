import { randomUUID } from "node:crypto";
import { link, lstat, open, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { fileTrouble } from "./file-trouble.ts";
import { fails, passes, skips, type Finding } from "./finding.ts";

const HINT =
  "Mount a file system there that both hosts share and that has hard links, such as NFS, and let the agent's user write to it.";

const NOT_SET =
  "not looked at, and needed for a witness and for fallback only: give it with --shared-dir or VMFERRY_SHARED_DIR";

/** A witness decides by link(2): the file system has to have it, and to count names. */
export async function checkSharedDirectory(path: string | undefined): Promise<Finding> {
  if (path === undefined) return skips(NOT_SET);
  const first = join(path, `.vmferry-doctor-${randomUUID()}`);
  const second = `${first}.link`;
  try {
    await syncAndClose(await open(first, "wx", 0o600));
    await link(first, second);
    const { nlink } = await lstat(first);
    if (nlink !== 2) return fails(`${path}: a file with two names is said to have ${nlink}`, HINT);
    await syncAndClose(await open(path));
    return passes(`${path} can be written to, and has hard links`);
  } catch (error) {
    return fails(fileTrouble(path, error), HINT);
  } finally {
    for (const file of [first, second]) await rm(file, { force: true }).catch(() => undefined);
  }
}

async function syncAndClose(handle: FileHandle): Promise<void> {
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

/**
 * Makes an agent's own directories, readable by its user alone, and empties the one for the
 * sockets of migrations: what an earlier life left there nobody listens on. Returns its path.
 */
export async function prepareDirectories(dirs: {
  readonly stateDir: string;
  readonly imageDir: string;
}): Promise<string> {
  const runDir = join(dirs.stateDir, "run");
  await mkdir(dirs.imageDir, { recursive: true });
  await rm(runDir, { recursive: true, force: true });
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  return runDir;
}

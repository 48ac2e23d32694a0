import { closeSync, openSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { lockExclusively } from "@vmferry/block";
import { AgentError } from "@vmferry/core";

const LOCK_MS_MAX = 5000;
const LOCK_AGAIN_MS = 50;

/** Another agent works over the same state. */
export class StateInUseError extends AgentError<{
  readonly code: "state-dir-in-use";
  readonly stateDir: string;
}> {}

/**
 * Makes an agent's own directories, readable by its user alone, and empties the one for the
 * sockets of migrations: what an earlier life left there nobody listens on. Returns its path.
 * Until the process ends no other agent gets past this for the same state directory; rejects with
 * `state-dir-in-use` where one has.
 */
export async function prepareDirectories(dirs: {
  readonly stateDir: string;
  readonly imageDir: string;
  readonly lockMsMax?: number;
}): Promise<string> {
  const { stateDir, imageDir, lockMsMax = LOCK_MS_MAX } = dirs;
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  await lockState(stateDir, lockMsMax);
  const runDir = join(stateDir, "run");
  await mkdir(imageDir, { recursive: true });
  await rm(runDir, { recursive: true, force: true });
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  return runDir;
}

/** A predecessor that was killed may take a moment to end. */
async function lockState(stateDir: string, msMax: number): Promise<void> {
  const fd = openSync(join(stateDir, "agent.lock"), "a+", 0o600);
  const untilMs = performance.now() + msMax;
  // Nobody closes it: the end of the process does. Children do not get it.
  while (!(await lockExclusively(fd))) {
    if (performance.now() < untilMs) {
      await sleep(LOCK_AGAIN_MS);
      continue;
    }
    closeSync(fd);
    throw new StateInUseError(
      `another agent works over the state directory ${stateDir}: stop it, or set VMFERRY_STATE_DIR ` +
        "to a directory of this agent's own",
      { code: "state-dir-in-use", stateDir },
    );
  }
}

import { readdirSync } from "node:fs";
import { QmpClient } from "../qmp/qmp-client.ts";
import { StandbyMonitor } from "../qmp/standby-monitor.ts";
import { escapeOptionValue } from "./qemu-arguments.ts";
import { watchAdopted } from "./exit-watch.ts";
import { identityBehind, refuseStranger } from "./attach-qemu.ts";
import { guestPaths, guestPathsOfQmpSocket } from "./guest-directory.ts";
import { GuestError } from "./guest-error.ts";
import { GuestProcess, type GuestIdentity } from "./guest-process.ts";
import { isSameProcess, readProcArguments, readProcStat } from "./proc-stat.ts";

export interface AdoptGuestOptions extends GuestIdentity {
  /** Until QMP answers. */
  readonly timeoutMs: number;
  readonly commandTimeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Of a guest whose QEMU somebody else started: where the agent keeps what is its own of it. */
  readonly attachedDirectory?: string;
}

/**
 * Attaches to a QEMU that an earlier life of the agent started. Rejects with `guest-gone`,
 * `guest-not-this-qemu`, or, while its process lives, with `monitor-not-usable` or what
 * QmpClient.connect rejects with; nothing was done to QEMU then.
 */
export async function adoptGuest(options: AdoptGuestOptions): Promise<GuestProcess> {
  const { pid, startTicks, qmpPath, timeoutMs, commandTimeoutMs, signal } = options;
  const { attachedDirectory } = options;
  checkProcess(options);
  if (attachedDirectory === undefined) checkServes(options);
  const qmp = await QmpClient.connect({
    path: qmpPath,
    timeoutMs,
    ...(commandTimeoutMs === undefined ? {} : { commandTimeoutMs }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (attachedDirectory !== undefined) {
    await closingUnless(qmp, async () => {
      checkBehind(options);
      await refuseStranger(qmp, options, timeoutMs);
    });
  }
  const paths =
    attachedDirectory === undefined
      ? guestPathsOfQmpSocket(qmpPath)
      : { ...guestPaths(attachedDirectory), qmpSocket: qmpPath };
  // A guest that was started here has none.
  const standby = await StandbyMonitor.goOn({ path: paths.standby }).catch(() => null);
  return new GuestProcess({
    identity: { pid, startTicks, qmpPath },
    ...{ qmp, paths, standby },
    exitWatch: watchAdopted(pid, startTicks),
  });
}

/** The QEMU that serves this QMP socket, by the process table; null when there is none. */
export function findGuest(qmpPath: string): GuestIdentity | null {
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || !serves(pid, qmpPath)) continue;
    const stat = readProcStat(pid);
    if (stat !== null && isSameProcess(pid, stat.startTicks)) {
      return { pid, startTicks: stat.startTicks, qmpPath };
    }
  }
  return null;
}

function checkProcess({ pid, startTicks }: GuestIdentity): void {
  const stat = readProcStat(pid);
  if (stat === null) throw gone(pid);
  if (stat.startTicks !== startTicks) throw notThisQemu(pid, "it began at another time");
  if (!isSameProcess(pid, startTicks)) throw gone(pid);
}

function checkServes({ pid, qmpPath }: GuestIdentity): void {
  // Start times count from the start of the host, so that they may repeat after the next one.
  if (!serves(pid, qmpPath)) {
    throw notThisQemu(pid, `it does not serve ${qmpPath}`);
  }
}

/**
 * Its command line was not written here: who has the connection open is asked. Where that is another
 * one, the guest's QEMU lives and cannot be talked to, which is not to be taken for its end.
 */
function checkBehind({ pid, startTicks, qmpPath }: GuestIdentity): void {
  const behind = identityBehind(qmpPath);
  if (behind.pid === pid && behind.startTicks === startTicks) return;
  const reason = `process ${behind.pid} serves it, and the guest's QEMU (pid ${pid}) lives`;
  throw new GuestError(`the monitor ${qmpPath} cannot be used: ${reason}`, {
    code: "monitor-not-usable",
    path: qmpPath,
    reason,
  });
}

async function closingUnless(qmp: QmpClient, check: () => Promise<void>): Promise<void> {
  try {
    await check();
  } catch (error) {
    await qmp.close();
    throw error;
  }
}

function serves(pid: number, qmpPath: string): boolean {
  const path = `path=${escapeOptionValue(qmpPath)},`;
  return readProcArguments(pid).some((argument) => argument.includes(path));
}

function gone(pid: number): GuestError {
  return new GuestError(`the guest's QEMU (pid ${pid}) is gone`, { code: "guest-gone", pid });
}

function notThisQemu(pid: number, reason: string): GuestError {
  return new GuestError(`the process ${pid} is not the guest's QEMU: ${reason}`, {
    code: "guest-not-this-qemu",
    pid,
    reason,
  });
}

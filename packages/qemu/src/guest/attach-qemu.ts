// Taking up a QEMU that somebody else started. Nothing is asked of it but what it is: the guest does
// not notice, and QEMU keeps no setting.

import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { codeOf } from "@vmferry/core";
import { QmpClient } from "../qmp/qmp-client.ts";
import { QmpError } from "../qmp/qmp-error.ts";
import { watchAdopted } from "./exit-watch.ts";
import { guestPaths } from "./guest-directory.ts";
import { GuestError } from "./guest-error.ts";
import { GuestProcess, type GuestIdentity } from "./guest-process.ts";
import { readProcStat } from "./proc-stat.ts";
import { processesServing } from "./socket-owner.ts";
import { strangerReason } from "./vcpu-threads.ts";

export interface AttachQemuOptions {
  /** Of its monitor. */
  readonly qmpPath: string;
  /** Where the agent keeps what is its own of the guest; made if absent. */
  readonly directory: string;
  /** Until QMP answers. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** What a monitor for the agent alone looks like on a command line. */
const MONITOR_HINT =
  "give QEMU a monitor for vmferry alone: -chardev socket,id=vmferry,path=PATH,server=on,wait=off " +
  "-mon chardev=vmferry,mode=control";

/** Rejects with `monitor-not-usable`, which says what is to be done. */
export async function attachQemu(options: AttachQemuOptions): Promise<GuestProcess> {
  const { qmpPath, directory } = options;
  const qmp = await connect(options);
  try {
    const identity = identityBehind(qmpPath);
    await refuseStranger(qmp, identity, options.timeoutMs);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const paths = { ...guestPaths(directory), qmpSocket: qmpPath };
    const exitWatch = watchAdopted(identity.pid, identity.startTicks);
    return new GuestProcess({ identity, qmp, paths, exitWatch, standby: null });
  } catch (error) {
    await qmp.close();
    throw error;
  }
}

/** Of the process that has the other end of a connection to this socket; throws where it is not seen. */
export function identityBehind(qmpPath: string): GuestIdentity {
  const pids = processesServing(qmpPath);
  const [pid] = pids;
  if (pid === undefined || pids.length > 1) {
    const seen = pid === undefined ? "cannot be seen" : `is one of ${pids.join(", ")}`;
    throw unusable(
      qmpPath,
      `the process behind it ${seen}: the agent has to be root or QEMU's user, in the same ` +
        `namespaces of processes and networks, and QEMU the only one that has its monitor open`,
    );
  }
  const [ours, its] = [process.getuid?.(), userOf(pid)];
  if (its !== ours) {
    throw unusable(
      qmpPath,
      `its QEMU (process ${pid}) runs as user ${its} and the agent as ${ours}: QEMU has to connect ` +
        "to sockets that are the agent's user's alone; run the agent as QEMU's user",
    );
  }
  const stat = readProcStat(pid);
  if (stat === null) throw unusable(qmpPath, `its QEMU (process ${pid}) has just ended`);
  return { pid, startTicks: stat.startTicks, qmpPath };
}

/** Rejects where that process is not, or is not known to be, the QEMU that answers. */
export async function refuseStranger(
  qmp: QmpClient,
  { pid, qmpPath }: Pick<GuestIdentity, "pid" | "qmpPath">,
  timeoutMs: number,
): Promise<void> {
  let reason: string | null;
  try {
    reason = await strangerReason(qmp, { pid, timeoutMs });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    reason = `its QEMU does not tell its processors (${error.message}), by which it is known`;
    throw unusable(qmpPath, reason, error);
  }
  if (reason !== null) throw unusable(qmpPath, reason);
}

/** Whose files it may open; null where it has just ended. */
function userOf(pid: number): number | null {
  try {
    const uids = /^Uid:\s+(.+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    // Real, effective, saved, and that for files.
    return Number(uids?.split(/\s+/)[3]);
  } catch {
    return null;
  }
}

async function connect({ qmpPath, timeoutMs, signal }: AttachQemuOptions): Promise<QmpClient> {
  try {
    return await QmpClient.connect({
      path: qmpPath,
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    throw unusable(qmpPath, reasonOf(error, timeoutMs), error);
  }
}

function reasonOf(error: QmpError, timeoutMs: number): string {
  const { detail } = error;
  if (detail.code === "qmp-connect-failed") {
    switch (detail.systemCode) {
      case "ENOENT":
        return "there is no such socket; look for the path on QEMU's command line";
      case "ECONNREFUSED":
        return "nobody listens there, or it is no socket: is QEMU running?";
      case "EACCES":
      case "EPERM":
        return `the agent (user ${process.getuid?.()}) is not permitted to connect; run it as root or as QEMU's user`;
      default:
        return error.message;
    }
  }
  if (detail.code === "qmp-timeout" && detail.waitingFor === "greeting") {
    return (
      `no QMP greeting came within ${timeoutMs} ms: another program has this monitor open (QEMU ` +
      `serves one at a time), or it is no QMP monitor; ${MONITOR_HINT}`
    );
  }
  if (codeOf(error) === "qmp-closed") {
    return `it was closed without a greeting: another program has it, or it is no QMP monitor; ${MONITOR_HINT}`;
  }
  return `it is not a QMP monitor (${error.message}); a human monitor has mode=readline: ${MONITOR_HINT}`;
}

function unusable(path: string, reason: string, cause?: unknown): GuestError {
  return new GuestError(
    `attach.qmp (${path}) cannot be used: ${reason}`,
    { code: "monitor-not-usable", path, reason },
    { cause },
  );
}

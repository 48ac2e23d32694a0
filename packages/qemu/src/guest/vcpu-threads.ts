/**
 * Whether the process that has a monitor's socket is the QEMU that answers on it. A relay (socat,
 * `ssh -L`) has the socket as QEMU would, and is another process: whoever kills it has not ended the
 * guest. QEMU tells the numbers of its processors' threads, and the kernel whose threads those are.
 *
 * A program of one thread is never mistaken, whatever numbers it is told: no processor runs in the
 * thread that a process began with. Numbers begin again in every namespace of processes, so that a
 * process in another one than the agent's is not known by them.
 */
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import type { QmpClient } from "../qmp/qmp-client.ts";

/** Why the process is not known to be the QEMU that answers here; null where it is. */
export async function strangerReason(
  qmp: QmpClient,
  { pid, timeoutMs }: { readonly pid: number; readonly timeoutMs: number },
): Promise<string | null> {
  const cpus = await qmp.execute("query-cpus-fast", undefined, { timeoutMs });
  const program = `process ${pid} (${programOf(pid)})`;
  if (namespaceOf(pid) !== namespaceOf("self")) {
    return (
      `${program} has it and is in another namespace of processes than the agent, so that nobody ` +
      "can tell whether it is QEMU: run the agent in the namespace of processes that QEMU is in"
    );
  }
  if (cpus.length === 0) {
    return "its QEMU has no processor, by whose thread it would be known: give it one (-smp)";
  }
  const other = cpus.find(({ threadId }) => !hasThread(pid, threadId));
  if (other === undefined) return null;
  return (
    `${program} has it and is not the QEMU that answers, whose processor runs in thread ` +
    `${other.threadId}: it passes on what is said, as a relay does (socat, ssh -L); give the path ` +
    "of QEMU's own socket, on QEMU's host and in its namespace of processes"
  );
}

function hasThread(pid: number, threadId: number): boolean {
  return threadId !== pid && existsSync(`/proc/${pid}/task/${threadId}`);
}

/** Null where it has just ended, or is not ours to look at. */
function namespaceOf(pid: number | "self"): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

function programOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "it has just ended";
  }
}

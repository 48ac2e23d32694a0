/**
 * Which process serves a unix socket. The kernel's own answer to that (SO_PEERCRED) is who began to
 * listen, and that is not QEMU where a manager has opened its monitor and handed it over. Whoever has
 * taken a connection is: its end has the socket's path, and only one process has it open.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { basename, resolve } from "node:path";

const CONNECTED = "03";

/**
 * The processes that have a connection open which came in at `path`; empty where none can be seen,
 * which needs the rights of its user, and the same namespaces of processes and networks.
 */
export function processesServing(path: string): readonly number[] {
  const sockets = connectedSockets(path);
  if (sockets.size === 0) return [];
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid && has(pid, sockets, path));
}

/** By inode, the paths as their processes have bound them: a relative one is relative to theirs. */
function connectedSockets(path: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const line of readFileSync("/proc/net/unix", "utf8").split("\n")) {
    const [, , , , , state, inode, ...words] = line.trim().split(/\s+/);
    const bound = words.join(" ");
    if (state === CONNECTED && inode !== undefined && basename(bound) === basename(path)) {
      found.set(`socket:[${inode}]`, bound);
    }
  }
  return found;
}

function has(pid: number, sockets: ReadonlyMap<string, string>, path: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const bound = sockets.get(linkOf(`/proc/${pid}/fd/${fd}`));
      return bound !== undefined && isSameFile(resolve(linkOf(`/proc/${pid}/cwd`), bound), path);
    });
  } catch {
    // It has ended, or is not ours to look at.
    return false;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

// What a benchmark that was killed has left behind. The process id in each name tells the owner.

import { readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listNamespaces, removeNamespace } from "./network.ts";

/** Removes the namespaces, with what runs in them, and files of benchmarks that are gone. */
export async function removeAbandoned(): Promise<void> {
  for (const namespace of await listNamespaces()) {
    if (isAbandoned(namespace)) await removeNamespace(namespace);
  }
  for (const name of await readdir(tmpdir())) {
    if (!isAbandoned(name)) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true, maxRetries: 5 });
  }
}

function isAbandoned(name: string): boolean {
  const pid = /^vmferry-bench-(\d+)-/.exec(name)?.[1];
  return pid !== undefined && !isAlive(Number(pid));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

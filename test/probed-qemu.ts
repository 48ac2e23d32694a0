// A QEMU with a second monitor, for tests that look at what the agents have done to a guest: the
// first one is the agent's.

import { chmod, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { join } from "node:path";
import { QmpClient, type BlockNode } from "@vmferry/qemu";

const PROBE_MS_MAX = 5000;

/** Writes a program that starts such a QEMU, and returns its path. */
export async function writeProbedQemu(directory: string): Promise<string> {
  const path = join(directory, "probed-qemu");
  const socket = `${directory}/probe-$$.sock`;
  const monitor = `-chardev socket,id=probe,path=${socket},server=on,wait=off -mon chardev=probe,mode=control`;
  // `exec` keeps the process number that `$$` stands for.
  const text = `#!/bin/sh
case "$*" in
*-incoming* | *-serial*) exec qemu-system-x86_64 "$@" ${monitor} ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
`;
  await writeFile(path, text);
  await chmod(path, 0o755);
  return path;
}

/** Every block node of that QEMU. */
export async function blockNodesOf(directory: string, pid: number): Promise<readonly BlockNode[]> {
  const qmp = await QmpClient.connect({
    path: join(directory, `probe-${pid}.sock`),
    timeoutMs: PROBE_MS_MAX,
  });
  try {
    return await qmp.execute("query-named-block-nodes", { flat: true });
  } finally {
    await qmp.close();
  }
}

/** As a person at a monitor of his own; what it resolves with tells whether the guest runs. Rejects where QEMU refuses. */
export async function typeCont(directory: string, pid: number): Promise<() => Promise<boolean>> {
  const path = join(directory, `probe-${pid}.sock`);
  const qmp = await QmpClient.connect({ path, timeoutMs: PROBE_MS_MAX });
  try {
    await qmp.execute("cont");
  } catch (error) {
    await qmp.close();
    throw error;
  }
  return async () => {
    const { running } = await qmp.execute("query-status");
    if (!running) await qmp.close();
    return running;
  };
}

/** Presses the guest's reset button. */
export function resetGuest(directory: string, pid: number): Promise<void> {
  return tell(directory, { pid, command: { execute: "system_reset" }, until: '"RESET"' });
}

/** Gives QEMU an image of a kind that it cannot migrate. */
export function openVdi(directory: string, pid: number, path: string): Promise<void> {
  const node = { driver: "vdi", "node-name": "vdi", file: { driver: "file", filename: path } };
  const command = { execute: "blockdev-add", arguments: node, id: "opened" };
  return tell(directory, { pid, command, until: '"id": "opened"' });
}

interface Telling {
  readonly pid: number;
  readonly command: Readonly<Record<string, unknown>>;
  /** What QEMU says when it has done so. */
  readonly until: string;
}

async function tell(directory: string, { pid, command, until }: Telling): Promise<void> {
  const socket = createConnection(join(directory, `probe-${pid}.sock`));
  try {
    const commands = [{ execute: "qmp_capabilities" }, command];
    socket.write(commands.map((each) => `${JSON.stringify(each)}\n`).join(""));
    await new Promise<void>((resolve, reject) => {
      let text = "";
      socket.on("error", reject);
      socket.on("data", (chunk) => {
        text += chunk.toString();
        if (text.includes('"error"')) reject(new Error(text));
        else if (text.includes(until)) resolve();
      });
    });
  } finally {
    socket.destroy();
  }
}

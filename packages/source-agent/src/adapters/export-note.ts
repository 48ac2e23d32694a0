/**
 * What is written down beside a guest while this agent stands between it and one of its disks: the
 * socket that QEMU looks for its export on. QEMU cannot be asked for it by the next agent, for it may
 * answer nothing until it has its export back. It is not synced: QEMU does not outlive its host.
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "@vmferry/core";

const VERSION = 1;

export function exportNotePath(guestDirectory: string, diskId: string): string {
  return join(guestDirectory, `${diskId}.export.json`);
}

/** There before the export is, and there until QEMU has let go of it. */
export async function writeExportNote(path: string, socketPath: string): Promise<void> {
  await writeFile(`${path}.new`, JSON.stringify({ version: VERSION, socketPath }), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** The path of the socket; null where nothing was exported. Rejects where that cannot be told. */
export async function readExportNote(path: string): Promise<string | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  try {
    const { version, socketPath } = JSON.parse(text) as { version: unknown; socketPath: unknown };
    if (version === VERSION && typeof socketPath === "string") return socketPath;
    throw new Error(`version ${String(version)}`);
  } catch (cause) {
    throw new Error(`${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
}

export async function removeExportNote(path: string): Promise<void> {
  await rm(path, { force: true });
}

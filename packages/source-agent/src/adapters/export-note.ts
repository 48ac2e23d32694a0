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

export interface ExportNote {
  readonly socketPath: string;
  /** A flush of the image has failed: no later one is to succeed, whatever the kernel says. */
  readonly isSuspect: boolean;
}

/** There before the export is, and there until QEMU has let go of it. */
export async function writeExportNote(
  path: string,
  socketPath: string,
  isSuspect = false,
): Promise<void> {
  const text = JSON.stringify({ version: VERSION, socketPath, ...(isSuspect && { isSuspect }) });
  await writeFile(`${path}.new`, text, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** Null where nothing was exported. Rejects where that cannot be told. */
export async function readExportNote(path: string): Promise<ExportNote | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  try {
    const { version, socketPath, isSuspect } = JSON.parse(text) as Record<string, unknown>;
    if (version === VERSION && typeof socketPath === "string") {
      return { socketPath, isSuspect: isSuspect === true };
    }
    throw new Error(`version ${String(version)}`);
  } catch (cause) {
    throw new Error(`${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
}

export async function removeExportNote(path: string): Promise<void> {
  await rm(path, { force: true });
}

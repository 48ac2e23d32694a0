/**
 * What is written down beside a guest while this agent stands between it and one of its disks: the
 * socket that QEMU looks for its export on. QEMU cannot be asked for it by the next agent, for it may
 * answer nothing until it has its export back. It is not synced: QEMU does not outlive its host.
 *
 * That a flush has failed stays written down for as long as this QEMU lives, also when it has let go
 * of the export: no later agent is to start a guest that stands still for that reason.
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "@vmferry/core";

const VERSION = 1;

export function exportNotePath(guestDirectory: string, diskId: string): string {
  return join(guestDirectory, `${diskId}.export.json`);
}

export interface ExportNote {
  /** Null where QEMU has let go of the export. */
  readonly socketPath: string | null;
  /** A flush of the image has failed: no later one is to succeed, whatever the kernel says. */
  readonly isSuspect: boolean;
}

/** There before the export is, and there until QEMU has let go of it. */
export async function writeExportNote(
  path: string,
  socketPath: string | null,
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
    if (version === VERSION && (typeof socketPath === "string" || socketPath === null)) {
      return { socketPath, isSuspect: isSuspect === true };
    }
    throw new Error(`version ${String(version)}`);
  } catch (cause) {
    throw new Error(
      `${path} cannot be read: ${messageOf(cause)}. It may say that the disk has lost a write: look at ` +
        "the disk, and remove the file where it has lost none",
      { cause },
    );
  }
}

/** QEMU has let go of the export. */
export async function endExportNote(path: string, isSuspect: boolean): Promise<void> {
  if (isSuspect) await writeExportNote(path, null, true);
  else await removeExportNote(path);
}

/** Also what is suspect: QEMU is gone, or was never told of the export. */
export async function removeExportNote(path: string): Promise<void> {
  await rm(path, { force: true });
}

/**
 * What is written down of a guest so that a restarted agent finds it again: guests outlive agents.
 * One small file in the guest's directory, replaced as a whole.
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fillGuestDefinition, type GuestDefinition } from "@vmferry/protocol";
import type { Accelerator, GuestIdentity } from "@vmferry/qemu";
import { writeDurably } from "../durable-file.ts";
import type { Attachment } from "./attach-guest.ts";

const FILE_NAME = "guest.json";
const RECORD_VERSION = 1;

/** How a guest came to this agent. How far a migration of it has come is for its journal to say. */
export type GuestStage =
  /** It arrives here, and has not been seen running yet. */
  | "incoming"
  | "owned"
  /** Its QEMU waits for a guest that nobody has offered yet. */
  | "prepared";

export interface GuestRecord {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly uuid: string;
  readonly qemuVersion: string;
  readonly epoch: number;
  readonly stage: GuestStage;
  /** Null from before its QEMU was started until that answers. */
  readonly identity: GuestIdentity | null;
  /** Absent where this agent started its QEMU. */
  readonly attachment?: Attachment | undefined;
}

export function guestRecordPath(directory: string): string {
  return join(directory, FILE_NAME);
}

/** Durable: one that a crash of the host has torn would keep a person busy with a guest that is gone. */
export async function writeGuestRecord(directory: string, record: GuestRecord): Promise<void> {
  const text = JSON.stringify({ version: RECORD_VERSION, ...record }, null, 2);
  await writeDurably(guestRecordPath(directory), `${text}\n`);
}

export async function removeGuestRecord(directory: string): Promise<void> {
  await rm(guestRecordPath(directory), { force: true });
}

/**
 * `unreadable`: there is one, and it cannot be read now, or not by this version. It says nothing then
 * of whether its QEMU is gone.
 */
export async function readGuestRecord(
  directory: string,
): Promise<GuestRecord | "absent" | "unreadable"> {
  let text: string;
  try {
    text = await readFile(guestRecordPath(directory), "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" || code === "ENOTDIR" ? "absent" : "unreadable";
  }
  try {
    const record = JSON.parse(text) as GuestRecord & { readonly version: number };
    if (record.version !== RECORD_VERSION) return "unreadable";
    return { ...record, definition: fillGuestDefinition(record.definition) };
  } catch {
    return "unreadable";
  }
}

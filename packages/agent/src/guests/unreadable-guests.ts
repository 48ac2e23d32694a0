/**
 * Guests whose record cannot be read. Nobody knows then which process is their QEMU, or whether it
 * lives: their names stay taken, and they are shown as in doubt, by their names alone.
 */
import type { GuestObject } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";
import { guestRecordPath } from "./guest-record.ts";

export function unreadableText(name: string, directory: string): string {
  return (
    `The record of guest ${name} (${guestRecordPath(directory)}) cannot be read, so that its QEMU is ` +
    "not known: nothing of the guest, its images and its journal is touched. Put the record right, " +
    "or move it away once that QEMU has ended; then restart the agent."
  );
}

export function unreadableDoubt(name: string, directory: string): ProblemError {
  return new ProblemError(unreadableText(name, directory), { code: "guest-in-doubt" });
}

export function unreadableObject(name: string): GuestObject {
  return {
    ...{ name, state: "in-doubt", epoch: 0, pid: null, qemuVersion: null, serialLog: null },
    ...{ machine: "", accel: "unknown", cpu: "", vcpus: 0, memoryBytes: 0, disks: [] },
    attached: null,
  };
}

/** What a person is told of a guest that has arrived and does not run: what is known, and what to do. */
import { messageOf } from "@vmferry/core";
import type { DestOwnership } from "@vmferry/protocol";
import { OverdueEnd } from "./overdue-end.ts";

/** What is tried again and again for a guest, and why that has failed so far. */
export interface Stuck {
  /**
   * `claim`: the witness shall say that it may be taken; `start`: its QEMU is told to; `end`: its QEMU
   * is killed; `clear`: so is one that was started for an offer which is not taken.
   */
  readonly at: "claim" | "start" | "end" | "clear";
  readonly reason: string;
}

/** Of a guest that runs nowhere meanwhile; with `clear`, of one that never left its source. */
export function stuckText({ at, reason }: Stuck): string {
  if (at === "claim") {
    return (
      "The source has handed the guest over, and the witness has not said yet that this host may take it: " +
      "the guest stands still. The witness is asked until it answers: look at the shared directory " +
      "(VMFERRY_SHARED_DIR) here. Meanwhile the source may take the guest back by the witness; a person gives " +
      `it back by settling at this agent that it is the source's. What the witness said last: ${reason}`
    );
  }
  if (at === "end") {
    return (
      "This host has refused the guest, and its QEMU here does not end: the source is not told before it is " +
      "gone, and does not start the guest on this host's word. It is killed until it is: look at the " +
      `process, which may wait for storage. What was seen last: ${reason}`
    );
  }
  if (at === "clear") {
    return (
      "This host does not take the guest, which is its source's as before, and the QEMU that it started " +
      "for it does not end: it is killed until it is gone, and no other offer of the guest is taken until " +
      `then. Look at the process, which may wait for storage. What was seen last: ${reason}`
    );
  }
  return (
    "This host has taken the guest, and its QEMU has not been seen to start it. It is told to until " +
    "it does, or is gone. Where its QMP session is closed, although it lives, start this agent anew, " +
    "which opens another one. Only where it never will: end that QEMU; the guest can be started again " +
    `from its disks, which are here and whole. What QEMU said last: ${reason}`
  );
}

/** Why there is nothing for a person to decide. */
export function whyNotInDoubt(phase: DestOwnership["phase"], stuck: Stuck | null): string {
  if (phase === "down") {
    return "The guest was taken, and may have run here: it is not the source's any more.";
  }
  return stuck === null ? `Nothing is in doubt here: the hand-over is ${phase}.` : stuckText(stuck);
}

/** Of a guest that runs on a disk of which a part is missing for good. */
export function lostDiskText(error: unknown): string {
  return (
    "The guest runs here, and one of its disks does not become whole; the guest stops where it needs " +
    `what is missing. The source keeps its image until this is settled: ${messageOf(error)}`
  );
}

/** Of a guest whose disk has all of it, and whose QEMU still has it by way of this agent. */
export function heldDiskText(reason: string): string {
  return (
    "The guest runs here, and a disk of it has come whole; its QEMU does not go on with the image alone, and " +
    "this agent serves the disk until it does: leave the agent running. QEMU is told to again and again. Where " +
    "its QMP session is closed, although it lives, start this agent anew, which opens another one. " +
    `The reason: ${reason}`
  );
}

/** Of a guest with disks that the agent's earlier life has left, and that cannot be opened. */
export function unservedDisksText(error: unknown): string {
  return (
    "A disk of the guest, of which a part is still at the source, cannot be opened here: the guest stands " +
    "still where it needs it. The source keeps its image, and it is tried again: leave both agents " +
    `running, and mend what the reason names. The reason: ${messageOf(error)}`
  );
}

/** Of a guest that lacks memory, which its QEMU does not take. */
export function lostMemoryText(error: unknown): string {
  if (error instanceof OverdueEnd) {
    return (
      "The guest runs here. This ends when QEMU says that it has everything. Where the guest stands still " +
      "and stays so, end this QEMU: its disks are here, what was in its memory is lost. The reason: " +
      error.message
    );
  }
  return (
    "The guest runs here, and its QEMU is not given the memory that it lacks: it stands still where it " +
    "needs some. The source keeps that memory until this is settled, and it is tried again: leave both " +
    "agents running, and mend what the reason names. Where that cannot be mended, end this QEMU: the " +
    `guest's disks are here, what was in its memory is lost. The reason: ${messageOf(error)}`
  );
}

/** Null where the guest's disks are all here. */
export function lackingText(disks: { readonly isWhole: boolean } | null): string | null {
  if (disks === null || disks.isWhole) return null;
  return (
    "A part of the guest's disks is still at the source, which must not let go of it: let both agents " +
    "go on until the disks are whole."
  );
}

/** Of one that does not run, in a QEMU that lives. */
export const LACKING_MEMORY =
  "A part of the guest's memory is still at the source, and its QEMU here waits for it: start the " +
  "guest there (cont), or end that QEMU first.";

export function doubtText({ phase }: DestOwnership, id: string): string {
  const settle = (owner: string): string =>
    `vmferry resolve ${id} ${owner} --fenced (at this agent), or ` +
    `POST /v1/migrations/${id}/resolve {"owner":"${owner}","fenced":true}`;
  if (phase === "down") {
    return (
      "This host has taken the guest, and its QEMU is gone or does not start it. It may have run, so " +
      "the source never gets it back. Its disks are here and whole. Let the source go, after which it " +
      `can be started again from them, as any guest (POST /v1/guests): ${settle("dest")}.`
    );
  }
  return (
    "The journal of the guest and its QEMU do not go together: somebody has started or stopped it by " +
    "hand, or lost a journal. Nothing is done with it. Look at both hosts, end the QEMU that is not " +
    `to run, and say whose the guest is: ${settle("dest")}, or "source" instead of "dest".`
  );
}

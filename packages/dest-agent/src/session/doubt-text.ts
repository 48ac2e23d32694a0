/** What a person is told of a guest that has arrived and does not run: what is known, and what to do. */
import type { DestOwnership } from "@vmferry/protocol";

/** Of a guest that is the dest's without a doubt, and that is not seen running there. */
export function stuckText(reason: string): string {
  return (
    "This host has taken the guest, and its QEMU has not been seen to start it. It is told to until " +
    "it does, or is gone. Where it never will: end that QEMU; the guest can be started again from " +
    `its disks, which are here and whole. What QEMU said last: ${reason}`
  );
}

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

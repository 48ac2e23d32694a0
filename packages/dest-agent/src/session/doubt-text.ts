/** What a person is told of a guest that has arrived and does not run: what is known, and what to do. */
import type { DestOwnership } from "@vmferry/protocol";

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

/** What a person is told of a hand-over that has no answer yet: what is known, and what to do. */
import type { SourceOwnership } from "@vmferry/protocol";

/** Of a guest that is the source's without a doubt, and that is not seen running there. */
export function stuckText(reason: string): string {
  return (
    "The guest is to run on here, and is not seen running yet: its disks cannot be given back to " +
    `it, or its QEMU does not start it. Both are tried again until it runs or its QEMU is gone. ` +
    `What stands in the way: ${reason}`
  );
}

/** Of disks that the dest may ask for, and that are not what the guest has left. */
export function unservedText(reason: string): string {
  return (
    `A disk that follows the guest is not served, so that the guest waits for it at the dest: ${reason}. ` +
    "Where the QEMU that the guest has left was started by hand, end that QEMU; it is tried again by " +
    "itself. What the dest has not fetched of an image that was written to since is lost."
  );
}

export function doubtText(
  { phase }: SourceOwnership,
  { id, destination: dest }: { readonly id: string; readonly destination: string },
): string {
  const settle = (owner: string): string =>
    `vmferry resolve ${id} ${owner} --fenced, or ` +
    `POST /v1/migrations/${id}/resolve {"owner":"${owner}","fenced":true}`;
  if (phase === "unclear") {
    return (
      "The journal of the guest and its QEMU do not go together: somebody has started or stopped it " +
      `by hand, or lost a journal. Nothing is done with it, and no disk of it is served. Look at both hosts, end the QEMU that is ` +
      `not to run, and say whose the guest is: ${settle("source")}, or "dest" instead of "source".`
    );
  }
  return (
    `The guest was handed over to ${dest}, which has not answered: it may run there by now. Here it ` +
    `stands still, nothing of it is lost, and ${dest} is asked until it answers. Only where it never ` +
    `will: make sure that the guest cannot run there any more, then ${settle("source")}; or, where ` +
    `it runs there, the same with "dest".`
  );
}

/** What a person is told of a hand-over that has no answer yet: what is known, and what to do. */
import type { Decision, Failure } from "@vmferry/agent";
import type { SourceOwnership } from "@vmferry/protocol";

/** To a monitor whose connection has ended an agent connects when it begins. */
const ANEW =
  "Where that is a QMP session that is closed, although QEMU lives, start this agent anew, which " +
  "opens another one.";

/** Of a guest that is the source's without a doubt, and that is not seen running there. */
export function stuckText(reason: string): string {
  return (
    "The guest is to run on here, and is not seen running yet: its disks cannot be given back to " +
    `it, or its QEMU does not start it. Both are tried again until it runs or its QEMU is gone. ` +
    `${ANEW} What stands in the way: ${reason}`
  );
}

/** Of a guest whose flush has failed, also in the log. */
export const LOST_FLUSH =
  "an image failed to store what the guest wrote, and the next flush would say that it is stored: the " +
  "guest stays stopped, and no agent starts it; look at the disk, power the guest off, and start it anew " +
  "from its image, which is as after a power cut; whoever starts it as it is (cont) gives up what was lost";

/** Of disks that the dest may ask for, and that are not what the guest has left. */
export function unservedDisksText(reason: string): string {
  return (
    `A disk that follows the guest is not served, so that the guest waits for it at the dest: ${reason}. ` +
    "Where the QEMU that the guest has left was started by hand, end that QEMU; it is tried again by " +
    "itself. What the dest has not fetched of an image that was written to since is lost."
  );
}

/** Of memory that the dest may ask for, and that this agent has stored. */
export function unservedMemoryText(reason: string): string {
  return (
    `The memory that follows the guest is not served, so that the guest waits for it at the dest: ${reason}. ` +
    'It is in "memory" in the state directory of this agent: mend what the reason names; it is tried again ' +
    "by itself, and nothing is lost meanwhile."
  );
}

/** Of a dest that this agent does not know any more. */
export function unaskedText(reason: string): string {
  return (
    `The dest is not asked, and what it may lack of the guest is not served: ${reason} ` +
    "Put it back into VMFERRY_PEERS and start this agent anew."
  );
}

export interface FollowingBytes {
  readonly memory: number;
  readonly disks: number;
}

interface Journey {
  readonly id: string;
  readonly destination: string;
}

/** Of a guest of which something is here that the dest may still lack; null where nobody serves it. */
export function lackingText(
  following: FollowingBytes | null,
  { id, destination: dest }: Journey,
): string {
  return (
    `The guest is ${dest}'s, and ${lackingPart(following, dest)} ` +
    `Where ${dest} will never come back, what ran there is lost with it, and what is here is the guest ` +
    `as it was handed over: stop this agent, move ${id}.* out of "memory" in its state directory and ` +
    `keep it, start the agent, and say "dest" again.`
  );
}

function lackingPart(following: FollowingBytes | null, dest: string): string {
  if (following === null) {
    return (
      `what ${dest} may lack of it cannot be served: the log of this agent says why. An agent that is ` +
      `started anew tries again.`
    );
  }
  const { memory, disks } = following;
  const parts = [
    ...(memory > 0 ? [`${mebibytes(memory)} MiB of its memory`] : []),
    ...(disks > 0 ? [`${mebibytes(disks)} MiB of its disks`] : []),
  ];
  const what =
    parts.length === 0
      ? `${dest} has not said yet that all it was sent has come.`
      : `${parts.join(" and ")} have not followed it yet.`;
  return `${what} The migration ends by itself when ${dest} has everything: let both agents run.`;
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}

/** `known` is what the witness has said; null where it has not been asked, or has no word yet. */
export function doubtText(
  { phase }: SourceOwnership,
  { id, destination: dest }: Journey,
  known: Decision | null = null,
): string {
  const settle = (owner: string): string =>
    `vmferry resolve ${id} ${owner} --fenced, or ` +
    `POST /v1/migrations/${id}/resolve {"owner":"${owner}","fenced":true}`;
  if (phase === "unclear") {
    return (
      "The journal of the guest and its QEMU do not go together: somebody has started or stopped it " +
      `by hand, or lost a journal. Nothing is done with it, and no disk of it is served. Look at both hosts, ` +
      `end the QEMU that is not to run, and say whose the guest is: ${settle("source")}, or "dest" instead of ` +
      `"source": what has not followed it yet stays here until it has.`
    );
  }
  if (known === "taken") {
    return (
      `${dest} has taken the guest, as the witness says, and has not said so itself: it may run there by now. ` +
      `Here it stands still and never runs again. Make sure that ${dest} can be reached, and look there ` +
      `at what it waits for. Only where it never will answer: ${settle("dest")}; what has not followed it ` +
      `yet stays here until it has.`
    );
  }
  return (
    `The guest was handed over to ${dest}, which has not answered: it may run there by now. Here it ` +
    `stands still, nothing of it is lost, and ${dest} is asked until it answers. Only where it never ` +
    `will: make sure that the guest cannot run there any more, then ${settle("source")}; or, where ` +
    `it runs there, the same with "dest": what has not followed it yet stays here until it has.`
  );
}

/** The guest is this side's again. */
export const SETTLED_BY_WITNESS: Failure = {
  code: "settled-by-witness",
  detail: "the dest did not answer, and the witness says that it never took the guest",
};

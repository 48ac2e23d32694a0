/** How a run ends: what of both hosts comes to rest in which state. */
import type { DestHost } from "./dest-host.ts";
import type { SourceHost } from "./source-host.ts";

export const DOWN = "a person decides: the dest took it and it does not run";

export type End =
  | "source runs"
  | "dest runs"
  | "its owner's QEMU died"
  | typeof DOWN
  | "a person decides: a journal was lost"
  | "nothing is left to do";

/** Null while something is still to come. */
export function endOf(source: SourceHost, dest: DestHost): End | null {
  if (source.agent?.isIdle !== true || dest.agent?.isIdle !== true) return null;
  if (source.journal.hasFailed || dest.journal.hasFailed) return null;
  const sourceAlive = source.machine?.isAlive === true;
  const destAlive = dest.machine?.isAlive === true;
  const isGone = GAVE.includes(source.journal.lastKind ?? "");
  if (source.machine?.isRunning === true) {
    const isOurs = source.agent.guestState === "running";
    return isOurs && source.machine.gate === null && !destAlive && !isGone ? "source runs" : null;
  }
  if (dest.machine?.isRunning === true) {
    const isKept = dest.journal.lastKind === "complete" && dest.record !== null;
    return isKept && !sourceAlive ? "dest runs" : null;
  }
  return sourceAlive || destAlive ? null : "its owner's QEMU died";
}

const GAVE: readonly string[] = ["handed-off", "released", "done"];

/** What only a person leads on, once all waits are over. */
export function needsPerson(source: SourceHost, dest: DestHost): End | null {
  const [sourceSays, destSays] = [source.journal.lastKind, dest.journal.lastKind];
  if (source.journal.wasLost || dest.journal.wasLost) {
    return "a person decides: a journal was lost";
  }
  const isDown = destSays === "taken" && dest.machine?.isRunning !== true;
  return isDown && sourceSays === "released" ? DOWN : null;
}

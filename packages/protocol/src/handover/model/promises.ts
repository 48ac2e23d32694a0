/** What has to hold in every world, and which worlds are ends. */
import { holdsMemory } from "./fault-steps.ts";
import type { Model } from "./model.ts";
import { DestQemu, SourceQemu, type World } from "./world.ts";

/** The first promise that this world breaks. */
export function brokenPromise(model: Model, w: World): string | null {
  const sourceRuns = w.sourceQemu === SourceQemu.RUNNING;
  const destRuns = w.destQemu === DestQemu.RUNNING;
  if (sourceRuns && destRuns) return "I1: both sides execute the guest";
  if (sourceRuns && w.destRan === 1) return "I1b: the source executes after the dest has";
  if (sourceRuns && w.sourceVersion !== w.acked)
    return "I3: the source runs without the last write";
  if (destRuns && w.destVersion !== w.acked) return "I3: the dest runs without the last write";
  const claims = claimsOf(model, w);
  if (claims.source && claims.dest) return "I4: both journals claim the guest";
  if (claims.source && w.sourceVersion !== w.acked)
    return "I2: the source owns without the last write";
  if (claims.dest && w.destVersion !== w.acked) return "I2: the dest owns without the last write";
  const letGo = model.sourceRecord(w.sourceJournal)?.record === "done";
  if (letGo && w.destLife === 0 && model.destRecord(w.destJournal)?.record === "taken") {
    return "I7: the source let go of the guest before the dest had all of it";
  }
  const holds = holdsMemory(w);
  if (w.memoryHit === 0 && !holds.source && !holds.dest) {
    return "I5: memory is lost although no QEMU that held it died";
  }
  const forgot = w.sourceForgot === 1 || w.destLife === 1;
  return isUnclear(model, w) && !forgot ? "a restart found what the protocol cannot leave" : null;
}

function claimsOf(
  model: Model,
  { sourceJournal, sourceForgot, destJournal }: World,
): { readonly source: boolean; readonly dest: boolean } {
  const source = model.sourceRecord(sourceJournal)?.record;
  const dest = model.destRecord(destJournal)?.record;
  return {
    source:
      source === "begin" ||
      source === "kept" ||
      source === "reclaimed" ||
      (source === undefined && sourceForgot === 0),
    dest: dest === "taken" || dest === "complete",
  };
}

export const ENDS = [
  "source runs",
  "dest runs",
  "its owner's QEMU died",
  "a person decides",
] as const;

/** Which of `ENDS` this is; -1 where something is still to be done. */
export function endOf(model: Model, w: World): number {
  if (w.sourceUp === 0 || w.destUp === 0 || w.sourcePending !== 0 || w.destPending !== 0) return -1;
  if (w.sourceDue === 1 || w.destDue === 1) return -1;
  const source = model.source.states.at(w.source).phase;
  const dest = model.dest.states.at(w.dest).phase;
  const noDest = (dest === "none" || dest === "refused") && w.destQemu === DestQemu.GONE;
  if (source === "owner" && noDest) {
    if (w.sourceQemu === SourceQemu.RUNNING) return 0;
    if (w.sourceQemu === SourceQemu.GONE) return 2;
  }
  if (source === "done" && dest === "owner" && w.sourceQemu === SourceQemu.GONE) {
    return w.destQemu === DestQemu.RUNNING ? 1 : 2;
  }
  return needsPerson(model, w) ? 3 : -1;
}

/**
 * The dest has taken the guest and lost its memory, and the source knows; or a journal is lost that
 * alone could tell.
 */
function needsPerson(model: Model, w: World): boolean {
  const source = model.source.states.at(w.source).phase;
  const dest = model.dest.states.at(w.dest).phase;
  if (isUnclear(model, w)) return true;
  const gave = source === "handed-off" || source === "released" || source === "done";
  if (gave && w.destLife === 1) return true;
  if (w.sourceForgot === 1 && (dest === "down" || dest === "owner")) return true;
  return source === "released" && dest === "down";
}

function isUnclear(model: Model, w: World): boolean {
  return (
    model.source.states.at(w.source).phase === "unclear" ||
    model.dest.states.at(w.dest).phase === "unclear"
  );
}

/** Everything that can go wrong, as often as the budgets of the search allow. */
import type { Model } from "./model.ts";
import { DestQemu, SourceQemu, type Emit, type World } from "./world.ts";

export function faultSteps(model: Model, w: World, emit: Emit): void {
  sourceFaults(model, w, emit);
  destFaults(model, w, emit);
  const lost = model.wire.lost(w);
  if (lost !== null) emit("all that is on its way is lost", lost, true);
}

/** Has the agent's latest memory: what a kill may cost. */
export function holdsMemory(w: World): { readonly source: boolean; readonly dest: boolean } {
  const loaded = w.destQemu === DestQemu.PAUSED || w.destQemu === DestQemu.RUNNING;
  return {
    source: w.sourceQemu !== SourceQemu.GONE && w.destRan === 0,
    dest: loaded && w.destVersion === w.acked,
  };
}

function sourceFaults(model: Model, w: World, emit: Emit): void {
  if (w.sourceUp === 1 && w.sourceCrashes > 0) {
    const sourceCrashes = w.sourceCrashes - 1;
    emit("source agent is killed", { ...sourceDown(model, w), sourceCrashes }, true);
  }
  if (w.sourceQemu !== SourceQemu.GONE) {
    if (w.sourceKills > 0) {
      const sourceKills = w.sourceKills - 1;
      emit("source QEMU is killed", { ...sourceKilled(w), sourceKills }, true);
    }
  }
  if (w.sourceHostCrashes > 0) {
    const sourceHostCrashes = w.sourceHostCrashes - 1;
    emit("source host crashes", { ...sourceKilled(sourceDown(model, w)), sourceHostCrashes }, true);
  }
  if (w.sourceUp === 0 && w.sourceForgets > 0) {
    const after = { ...w, sourceForgets: w.sourceForgets - 1, sourceForgot: 1, sourceJournal: 0 };
    emit("the source's journal is lost", after, true);
  }
}

function destFaults(model: Model, w: World, emit: Emit): void {
  if (w.destUp === 1 && w.destCrashes > 0) {
    emit("dest agent is killed", { ...destDown(model, w), destCrashes: w.destCrashes - 1 }, true);
  }
  if (w.destQemu !== DestQemu.GONE && w.destKills > 0) {
    emit("dest QEMU is killed", { ...destKilled(w), destKills: w.destKills - 1 }, true);
  }
  if (w.destHostCrashes > 0) {
    const destHostCrashes = w.destHostCrashes - 1;
    emit("dest host crashes", { ...destKilled(destDown(model, w)), destHostCrashes }, true);
  }
  if (w.destUp === 0 && w.destForgets > 0) emitForgets(model, w, emit);
}

/** Another incarnation: the streams of the sessions that it has forgotten are not fed to it. */
function emitForgets(model: Model, w: World, emit: Emit): void {
  const destForgets = w.destForgets - 1;
  const after = { ...w, destForgets, destLife: 1, destJournal: 0, destKnows: 0 };
  model.wire.dropStreams(after);
  emit("the dest's journal is lost", after, true);
}

/** What an agent has in memory alone is gone with it. */
function sourceDown({ wire }: Model, w: World): World {
  const down = { ...w, sourceUp: 0, source: 0, sourcePending: 0, sourceDue: 0, saw: w.saw & 2 };
  wire.hangUp(down);
  return down;
}

function destDown({ wire }: Model, w: World): World {
  const down = { ...w, destUp: 0, dest: 0, destPending: 0, destDue: 0, saw: w.saw & 1 };
  wire.hangUp(down);
  return down;
}

function sourceKilled(w: World): World {
  const memoryHit = holdsMemory(w).source ? 1 : w.memoryHit;
  return { ...w, sourceQemu: SourceQemu.GONE, memoryHit };
}

function destKilled(w: World): World {
  const memoryHit = holdsMemory(w).dest ? 1 : w.memoryHit;
  return { ...w, destQemu: DestQemu.GONE, memoryHit };
}

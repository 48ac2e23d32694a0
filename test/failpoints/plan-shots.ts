/** Which failpoint is hit how: each of them by a death, a pause and a bad link, and some by errors. */
import type { CatalogueEntry } from "./catalogue.ts";
import type { Action, Shot } from "./failpoint-round.ts";

/** Where an error of the system can come from: what the agent asks the kernel to store. */
const STORES = /^(journal|mark|images|nbd|gate)\./;

export interface PlanOptions {
  readonly actions: readonly Action[];
  /** Of each failpoint and action. */
  readonly rounds: number;
  readonly seed: number;
}

/** First each failpoint once by each action, where it is passed first; then in the other scenarios. */
export function planShots(
  entries: readonly CatalogueEntry[],
  { actions, rounds, seed }: PlanOptions,
): readonly Shot[] {
  const numbered = entries.map((entry, index) => ({ entry, index }));
  const isRepeated = ({ entry, index }: (typeof numbered)[number]): boolean =>
    entries.findIndex(({ side, name }) => side === entry.side && name === entry.name) < index;
  const shots: Shot[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const repeated of [false, true]) {
      const some = numbered.filter((one) => isRepeated(one) === repeated);
      for (const action of actions) {
        for (const { entry, index } of some) {
          if (!isSensible(entry, action, index + round)) continue;
          shots.push({ ...entry, action, seed: seed + round * 1000 + index });
        }
      }
    }
  }
  return shots;
}

/** Of both kinds of bad links, and of both errors, each failpoint gets one a round. */
function isSensible({ name, scenario }: CatalogueEntry, action: Action, turn: number): boolean {
  switch (action) {
    case "kill":
    case "stop":
      return true;
    case "cut":
      return scenario !== "start" && turn % 2 === 0;
    case "one-way":
      return scenario !== "start" && turn % 2 === 1;
    case "enospc":
      return STORES.test(name) && turn % 2 === 0;
    case "eio":
      return STORES.test(name) && turn % 2 === 1;
  }
}

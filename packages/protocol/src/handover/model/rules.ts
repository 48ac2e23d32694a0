import { nextDestOwnership } from "../dest-ownership.ts";
import { recoverDest } from "../recover-dest.ts";
import { recoverSource } from "../recover-source.ts";
import { nextSourceOwnership } from "../source-ownership.ts";
import { NO_FAULTS, type Budgets } from "./world.ts";

/** What is searched: the production functions, or one of them spoilt on purpose; and how far. */
export interface Rules {
  readonly nextSource: typeof nextSourceOwnership;
  readonly nextDest: typeof nextDestOwnership;
  readonly recoverSource: typeof recoverSource;
  readonly recoverDest: typeof recoverDest;
  readonly wire: "bag" | "link";
  readonly attemptsMax: number;
  readonly writesMax: number;
  readonly budgets: Budgets;
  /**
   * Somebody whom both can ask who has the last word, where there is one. A claim is made and
   * answered in one step; a witness that is read first and written then is one of the planted bugs.
   */
  readonly witness: "none" | "atomic" | "read-then-write";
  /** The dest's QEMU was started without `-S`. Never so but as a planted bug. */
  readonly destAutostarts: boolean;
  /** The dest takes no offer of a migration that its journal names. Always so but for a planted bug. */
  readonly destKnowsOffers: boolean;
}

export interface Variant extends Partial<Omit<Rules, "budgets">> {
  readonly budgets?: Partial<Budgets>;
}

/** The production functions over a bag, one attempt, one write, and no faults but those named. */
export function rulesOf(variant: Variant): Rules {
  return {
    nextSource: nextSourceOwnership,
    nextDest: nextDestOwnership,
    recoverSource,
    recoverDest,
    wire: "bag",
    attemptsMax: 1,
    writesMax: 1,
    witness: "none",
    destAutostarts: false,
    destKnowsOffers: true,
    ...variant,
    budgets: { ...NO_FAULTS, ...variant.budgets },
  };
}

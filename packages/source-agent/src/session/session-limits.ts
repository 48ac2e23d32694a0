import type { Clock } from "@vmferry/core";
import type { MigrationLimits, MigrationLimitsPatch } from "@vmferry/protocol";
import { changedLimits } from "./migration-plan.ts";
import type { SessionError } from "./session-error.ts";
import { TotalLimit } from "./total-limit.ts";

/** The limits of an attempt, which may change while it runs. */
export class SessionLimits {
  readonly #total: TotalLimit;
  #now: MigrationLimits;

  /** The time runs from here on; `onPassed` is called when it is over before `end`. */
  constructor(limits: MigrationLimits, clock: Clock, onPassed: (error: SessionError) => void) {
    this.#now = limits;
    this.#total = new TotalLimit(clock, onPassed);
    this.#total.set(limits.totalMsMax);
  }

  get now(): MigrationLimits {
    return this.#now;
  }

  change(patch: MigrationLimitsPatch): void {
    this.#now = changedLimits(this.#now, patch);
    this.#total.set(this.#now.totalMsMax);
  }

  /** The guest is stunned, or the attempt over: no more time is counted. */
  end(): void {
    this.#total.end();
  }
}

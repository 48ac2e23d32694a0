import { Deferred, type Clock } from "@vmferry/core";

export interface TurnOptions {
  /** Of waiting and working together. */
  readonly timeoutMs: number;
  /** What to reject with when it is over. */
  readonly late: () => Error;
}

/**
 * Work on something that may hang: one at a time, in the order of the calls, and nobody waits for
 * longer than agreed. A call of the file system that hangs holds a thread of the process until it
 * ends, and there are few; so whatever is asked for meanwhile takes no further one.
 */
export class TimedTurns {
  readonly #clock: Clock;
  readonly #waiting = new Set<Deferred>();
  #isTaken = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Work that is late goes on, and keeps its turn until it ends; its signal tells it, its result is
   * dropped. Work that is late before its turn has come is never begun.
   */
  async run<T>(work: (signal: AbortSignal) => Promise<T>, options: TurnOptions): Promise<T> {
    const controller = new AbortController();
    const over = new Deferred<never>();
    const cancel = this.#clock.after(options.timeoutMs, () => {
      const error = options.late();
      controller.abort(error);
      over.reject(error);
    });
    try {
      return await Promise.race([this.#inTurn(work, controller.signal), over.promise]);
    } finally {
      cancel();
    }
  }

  async #inTurn<T>(work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#isTaken) await this.#wait(signal);
    this.#isTaken = true;
    try {
      return await work(signal);
    } finally {
      this.#leave();
    }
  }

  /** Until the turn is given to this one; for ever where it is late. */
  async #wait(signal: AbortSignal): Promise<void> {
    const turn = new Deferred();
    this.#waiting.add(turn);
    signal.addEventListener("abort", () => this.#waiting.delete(turn), { once: true });
    await turn.promise;
  }

  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#isTaken = false;
      return;
    }
    this.#waiting.delete(next);
    next.resolve();
  }
}

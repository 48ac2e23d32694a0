import { InvariantError, systemClock, type Clock } from "@vmferry/core";
import { TimedTurns } from "../witness/timed-turns.ts";
import { asPageFileError, pageFileClosed, pageFileLate } from "./page-file-error.ts";

export interface FileTurnsOptions {
  readonly clock?: Clock;
  readonly timeoutMs: number;
}

/**
 * The calls of one file, one at a time and none for longer than agreed; whatever they reject with
 * becomes a `PageFileError`.
 */
export class FileTurns {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #turns: TimedTurns;
  #underWay: Promise<unknown> = Promise.resolve();
  #isOver = false;

  constructor(path: string, { clock = systemClock, timeoutMs }: FileTurnsOptions) {
    this.#path = path;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#turns = new TimedTurns(clock);
  }

  /** Work that is late has its signal aborted, and is to begin nothing more. */
  async run<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const late = (): Error => pageFileLate(this.#path, this.#timeoutMs);
    const inTurn = async (signal: AbortSignal): Promise<T> => {
      if (this.#isOver) throw pageFileClosed(this.#path);
      const result = work(signal);
      this.#underWay = result.catch(() => undefined);
      return await result;
    };
    try {
      return await this.#turns.run(inTurn, { timeoutMs: this.#timeoutMs, late });
    } catch (error) {
      throw error instanceof InvariantError ? error : asPageFileError(this.#path, error);
    }
  }

  /**
   * Nothing begins any more but `last`, after what is under way. It is not waited for where that
   * takes too long, and no failure of it counts.
   */
  async end(last: () => Promise<void>): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    const ended = this.#underWay.then(last).catch(() => undefined);
    const late = Promise.withResolvers<undefined>();
    const cancel = this.#clock.after(this.#timeoutMs, () => {
      late.resolve(undefined);
    });
    await Promise.race([ended, late.promise]);
    cancel();
  }
}

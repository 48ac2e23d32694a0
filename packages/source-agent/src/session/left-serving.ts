/**
 * Memory or disks that a guest of an earlier life has left: served as soon as they can be, for nobody
 * else has what the dest may still lack of them. Why they are not is told.
 */
import type { Logger } from "@vmferry/agent";
import { growingDelay, messageOf, sleep, type Clock } from "@vmferry/core";

const AGAIN = { msMin: 1000, msMax: 30_000 };

export interface LeftServingOptions<Rest> {
  /** What it is, for the log. */
  readonly what: "memory" | "disks";
  readonly left: { serve(): Promise<Rest | null> };
  readonly clock: Clock;
  readonly logger: Logger;
  /** `rest` or `refusal` is another. */
  readonly onChange: () => void;
}

export class LeftServing<Rest extends { close(): Promise<void> }> {
  readonly #options: LeftServingOptions<Rest>;
  readonly #closing = new AbortController();
  #serving: Promise<void> | null = null;
  #rest: Rest | null = null;
  #refusal: string | null = null;

  constructor(options: LeftServingOptions<Rest>) {
    this.#options = options;
  }

  /** Null while nothing is served, be it that nothing follows. */
  get rest(): Rest | null {
    return this.#rest;
  }

  /** Why that is not served which the dest may ask for; null without any. */
  get refusal(): string | null {
    return this.#refusal;
  }

  /** Tries it until it succeeds, or is closed. */
  begin(): void {
    if (!this.#closing.signal.aborted) this.#serving ??= this.#serve();
  }

  /** What was left is the guest's again, or nobody's. What was served is still shown. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#serving;
    await this.#rest?.close();
  }

  async #serve(): Promise<void> {
    const { what, left, clock, logger, onChange } = this.#options;
    const { signal } = this.#closing;
    const nextDelayMs = growingDelay(AGAIN);
    while (!signal.aborted) {
      try {
        this.#rest = await left.serve();
        this.#refusal = null;
        onChange();
        return;
      } catch (error) {
        const refusal = messageOf(error);
        if (refusal !== this.#refusal) {
          logger.error({ err: error, what }, "what the dest may lack cannot be served");
          this.#refusal = refusal;
          onChange();
        }
      }
      await sleep(clock, nextDelayMs(), signal);
    }
  }
}

/** `totalMsMax`: how long an attempt may take until its guest is stunned. It may change on the way. */
import type { Clock } from "@vmferry/core";
import { SessionError } from "./session-error.ts";

export class TotalLimit {
  readonly #clock: Clock;
  readonly #startedMs: number;
  readonly #onPassed: (error: SessionError) => void;
  #over = false;
  #cancel: () => void = () => undefined;

  /** The time runs from here on. */
  constructor(clock: Clock, onPassed: (error: SessionError) => void) {
    this.#clock = clock;
    this.#startedMs = clock.nowMs();
    this.#onPassed = onPassed;
  }

  /** Null for none. One that has passed already is told of in a moment, not by this call. */
  set(totalMsMax: number | null): void {
    this.#cancel();
    if (totalMsMax === null || this.#over) return;
    const leftMs = Math.max(0, this.#startedMs + totalMsMax - this.#clock.nowMs());
    this.#cancel = this.#clock.after(leftMs, () => {
      const detail = `the guest was not stunned within totalMsMax (${totalMsMax} ms)`;
      this.#onPassed(new SessionError(detail, { code: "time-limit" }));
    });
  }

  /** The guest is stunned, or the attempt over. */
  end(): void {
    this.#over = true;
    this.#cancel();
  }
}

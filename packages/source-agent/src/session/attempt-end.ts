/** The first failure of an attempt: ends everything that waits, and is the reason that is told. */
import { failureOf, type Failure, type Logger } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";

export class AttemptEnd {
  readonly #logger: Logger;
  readonly #controller = new AbortController();
  readonly #ended = new Deferred<never>();
  #failure: Failure | null = null;

  constructor(logger: Logger) {
    this.#logger = logger;
    this.#ended.promise.catch(() => undefined);
  }

  get failure(): Failure | null {
    return this.#failure;
  }

  /** Fires with the failure. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  fail(error: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = failureOf(error, "source");
    this.#logger.warn({ code: this.#failure.code, reason: this.#failure.detail }, "ending");
    this.#controller.abort(error);
    this.#ended.reject(error);
  }

  /** Why a guest that was handed over came back, whatever went wrong before. */
  gaveBack(failure: Failure): void {
    this.#failure = failure;
  }

  /** What `step` comes to; rejects with the failure when that is first. */
  unless<T>(step: Promise<T>): Promise<T> {
    return Promise.race([step, this.#ended.promise]);
  }
}

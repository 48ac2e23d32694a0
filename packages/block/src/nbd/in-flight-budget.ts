import { assert, Deferred } from "@vmferry/core";

/**
 * Counts what a client has under way, and lets the one reader of its requests wait at the limit.
 * A request larger than the byte limit would wait for ever: the caller has refused it before.
 */
export class InFlightBudget {
  readonly #requestsMax: number;
  readonly #bytesMax: number;
  #requests = 0;
  #bytes = 0;
  #released: Deferred | null = null;

  constructor(limits: { readonly requestsMax: number; readonly bytesMax: number }) {
    this.#requestsMax = limits.requestsMax;
    this.#bytesMax = limits.bytesMax;
  }

  get requests(): number {
    return this.#requests;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Resolves when there is room for the request, which then counts. */
  async take(bytes: number): Promise<void> {
    assert(bytes <= this.#bytesMax, "a request fits the budget");
    while (this.#requests >= this.#requestsMax || this.#bytes + bytes > this.#bytesMax) {
      await this.#nextRelease();
    }
    this.#requests += 1;
    this.#bytes += bytes;
  }

  release(bytes: number): void {
    assert(this.#requests > 0 && this.#bytes >= bytes, "what is released was taken");
    this.#requests -= 1;
    this.#bytes -= bytes;
    this.#released?.resolve();
    this.#released = null;
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#requests > 0) await this.#nextRelease();
  }

  async #nextRelease(): Promise<void> {
    this.#released ??= new Deferred();
    await this.#released.promise;
  }
}

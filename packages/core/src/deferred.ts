/** A promise that is settled from outside; settling it twice is harmless. */
export class Deferred<T = void> {
  readonly promise: Promise<T>;
  #settled = false;
  readonly #resolve: (value: T) => void;
  readonly #reject: (reason: unknown) => void;

  constructor() {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.promise = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    // Whoever awaits sees the rejection; nobody awaiting is not a crash of the process.
    promise.catch(() => undefined);
  }

  get settled(): boolean {
    return this.#settled;
  }

  resolve(value: T): void {
    this.#settled = true;
    this.#resolve(value);
  }

  reject(reason: unknown): void {
    this.#settled = true;
    this.#reject(reason);
  }
}

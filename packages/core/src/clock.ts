/** Time as everything but the adapters sees it. */
export interface Clock {
  /** Monotonic milliseconds, with fractions. Never goes back, has no relation to the date. */
  nowMs(): number;
  /** The date, for people and records only. */
  date(): Date;
  /** Calls back once after `ms`; the returned function cancels it. */
  after(ms: number, callback: () => void): () => void;
}

/**
 * Resolves after `ms`, or as soon as `signal` is aborted. Whoever waits no longer, and has no signal,
 * leaves the timer behind.
 */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      cancelTimer();
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const cancelTimer = clock.after(ms, done);
    signal?.addEventListener("abort", done);
    if (signal?.aborted === true) done();
  });
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  date: () => new Date(),
  after: (ms, callback) => {
    const timer = setTimeout(callback, ms);
    return () => {
      clearTimeout(timer);
    };
  },
};

import { Deferred, type Clock } from "@vmferry/core";
import { QmpError } from "./qmp-error.ts";
import type { QmpEvent } from "./qmp-event.ts";

export interface QmpWaitOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

interface Waiter {
  readonly predicate: (event: QmpEvent) => boolean;
  readonly found: Deferred<QmpEvent>;
  readonly release: () => void;
}

/** Promises of an event that has not happened yet. */
export class EventWaiters {
  readonly #clock: Clock;
  readonly #waiters = new Set<Waiter>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A rejection that nobody awaits is harmless: the promise comes from a Deferred. */
  add(
    predicate: (event: QmpEvent) => boolean,
    { timeoutMs, signal }: QmpWaitOptions,
  ): Promise<QmpEvent> {
    const found = new Deferred<QmpEvent>();
    if (signal?.aborted === true) {
      found.reject(signal.reason);
      return found.promise;
    }
    const cancelTimer = this.#clock.after(timeoutMs, () => {
      this.#settle(waiter, () => {
        found.reject(eventTimeout(timeoutMs));
      });
    });
    const abort = (): void => {
      this.#settle(waiter, () => {
        found.reject(signal?.reason);
      });
    };
    signal?.addEventListener("abort", abort, { once: true });
    const release = (): void => {
      cancelTimer();
      signal?.removeEventListener("abort", abort);
    };
    const waiter: Waiter = { predicate, found, release };
    this.#waiters.add(waiter);
    return found.promise;
  }

  publish(event: QmpEvent): void {
    for (const waiter of this.#waiters) {
      let matches: boolean;
      try {
        matches = waiter.predicate(event);
      } catch (error) {
        // It is the fault of whoever waits, and of nobody else.
        this.#settle(waiter, () => {
          waiter.found.reject(error);
        });
        continue;
      }
      if (!matches) continue;
      this.#settle(waiter, () => {
        waiter.found.resolve(event);
      });
    }
  }

  rejectAll(reason: () => Error): void {
    for (const waiter of this.#waiters) {
      this.#settle(waiter, () => {
        waiter.found.reject(reason());
      });
    }
  }

  #settle(waiter: Waiter, settle: () => void): void {
    this.#waiters.delete(waiter);
    waiter.release();
    settle();
  }
}

function eventTimeout(timeoutMs: number): QmpError {
  return new QmpError(`QEMU did not send the awaited QMP event within ${timeoutMs} ms`, {
    code: "qmp-timeout",
    waitingFor: "event",
    timeoutMs,
  });
}

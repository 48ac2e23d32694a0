/**
 * For how long a link may be without one of its connections. An outage begins with the first that is
 * lost and ends when all are back. Each may last `LINK_LOST_MS_MAX`; after `guestStandsStill` they
 * share `LINK_LOST_STUNNED_MS_MAX`, for then each is downtime.
 */
import { Deferred, type Clock } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import { PeerError } from "./peer-error.ts";

export class LinkOutage {
  readonly #clock: Clock;
  readonly #onTooLong: (reason: Error) => void;
  readonly #lost = new Set<string>();
  #leftMs = limits.LINK_LOST_MS_MAX;
  #isShared = false;
  #sinceMs = 0;
  #cancelTimer: () => void = () => undefined;
  #over = new Deferred();

  constructor(clock: Clock, onTooLong: (reason: Error) => void) {
    this.#clock = clock;
    this.#onTooLong = onTooLong;
    this.#over.resolve();
  }

  get lasts(): boolean {
    return this.#lost.size > 0;
  }

  /** Resolves as soon as every connection is there. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  lost(connection: string): void {
    if (!this.lasts) {
      this.#over = new Deferred();
      this.#begin();
    }
    this.#lost.add(connection);
  }

  /** Returns for how long the link was not whole when it is now, else null. */
  back(connection: string): number | null {
    if (!this.#lost.delete(connection) || this.lasts) return null;
    this.#cancelTimer();
    const tookMs = this.#clock.nowMs() - this.#sinceMs;
    if (this.#isShared) this.#leftMs = Math.max(0, this.#leftMs - tookMs);
    this.#over.resolve();
    return tookMs;
  }

  /** One that lasts already has as long from now on as one that begins. */
  guestStandsStill(): void {
    this.#isShared = true;
    this.#leftMs = limits.LINK_LOST_STUNNED_MS_MAX;
    if (!this.lasts) return;
    this.#cancelTimer();
    this.#begin();
  }

  stop(): void {
    this.#cancelTimer();
  }

  #begin(): void {
    this.#sinceMs = this.#clock.nowMs();
    const leftMs = this.#leftMs;
    this.#cancelTimer = this.#clock.after(leftMs, () => {
      const names = [...this.#lost].join(", ");
      const text = `the link to the peer did not come back within ${leftMs} ms (${names})`;
      this.#onTooLong(new PeerError(text, { code: "peer-lost", closeCode: null }));
    });
  }
}

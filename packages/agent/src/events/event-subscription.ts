import { assert, Deferred, type Clock } from "@vmferry/core";
import { isFinalEvent, type AgentEvent } from "@vmferry/protocol";

export interface EventSubscriptionOptions {
  readonly clock: Clock;
  /** Events other than progress that may wait before the listener counts as too slow. */
  readonly queueEventsMax: number;
  /** Only this migration's events, and the end after its final one. */
  readonly migrationId: string | undefined;
  /** Called once, when the subscription takes no more events. */
  readonly onDetached: (subscription: EventSubscription) => void;
}

/** `ended`: nothing will come. `overflowed`: too slow, what waited is gone; resume by the last id. */
export type EventDelivery = AgentEvent | "idle" | "ended" | "overflowed";

/**
 * What one listener has still to be told, bounded. Of each migration's progress only the latest
 * waits; everything else waits in full up to a limit, beyond which the listener is given up, for
 * it can come back and have the events replayed. Adding an event never waits for the listener.
 */
export class EventSubscription {
  readonly #options: EventSubscriptionOptions;
  /** By id. Ids only grow, so the order of insertion is the order of ids. */
  readonly #queue = new Map<number, AgentEvent>();
  readonly #progressIds = new Map<string, number>();
  readonly #overflow = new Deferred();
  #state: "open" | "ended" | "overflowed" = "open";
  #waker: Deferred | null = null;
  #lifecycleCount = 0;
  readonly #lifecycleCountMax: number;

  constructor(options: EventSubscriptionOptions, replay: readonly AgentEvent[]) {
    this.#options = options;
    // A replay may be longer than a queue: it was asked for, and it is as bounded as its ring.
    this.#lifecycleCountMax = options.queueEventsMax + replay.length;
    for (const event of replay) this.offer(event);
  }

  /** Takes no more events; some may still wait to be read. */
  get ended(): boolean {
    return this.#state !== "open";
  }

  /** Events that wait to be read. */
  get pendingCount(): number {
    return this.#queue.size;
  }

  /** Nothing waits and nothing will come. */
  get exhausted(): boolean {
    return this.#state === "ended" && this.#queue.size === 0;
  }

  /** Resolves when the listener is given up; one that is busy writing would not ask for more. */
  get overflow(): Promise<void> {
    return this.#overflow.promise;
  }

  offer(event: AgentEvent): void {
    const { migrationId } = this.#options;
    const about = "migration" in event ? event.migration.id : null;
    if (this.#state !== "open" || (migrationId !== undefined && about !== migrationId)) return;
    if (event.type === "migration.progress") {
      this.#dropProgress(event.migration.id);
      this.#progressIds.set(event.migration.id, event.id);
    } else if (++this.#lifecycleCount > this.#lifecycleCountMax) {
      this.#queue.clear();
      this.#detach("overflowed");
      this.#overflow.resolve();
      return;
    }
    this.#queue.set(event.id, event);
    if (migrationId !== undefined && isFinalEvent(event)) this.#detach("ended");
    this.#waker?.resolve();
  }

  /** The next event, or after `idleMs` without one "idle". One call at a time. */
  async next(idleMs: number): Promise<EventDelivery> {
    assert(this.#waker === null, "one reader of an event subscription");
    if (this.#queue.size === 0 && this.#state === "open") {
      this.#waker = new Deferred();
      const callOff = this.#options.clock.after(idleMs, () => this.#waker?.resolve());
      await this.#waker.promise;
      callOff();
      this.#waker = null;
    }
    return this.#take() ?? (this.#state === "open" ? "idle" : this.#state);
  }

  /** The listener has gone, or the hub has: what waits is dropped. */
  close(): void {
    this.#queue.clear();
    if (this.#state === "open") this.#detach("ended");
  }

  #take(): AgentEvent | undefined {
    const first = this.#queue.entries().next();
    if (first.done === true) return undefined;
    const [id, event] = first.value;
    this.#queue.delete(id);
    if (event.type === "migration.progress") this.#progressIds.delete(event.migration.id);
    else this.#lifecycleCount -= 1;
    return event;
  }

  #dropProgress(migrationId: string): void {
    const waitingId = this.#progressIds.get(migrationId);
    if (waitingId !== undefined) this.#queue.delete(waitingId);
  }

  #detach(state: "ended" | "overflowed"): void {
    this.#state = state;
    this.#options.onDetached(this);
    this.#waker?.resolve();
  }
}

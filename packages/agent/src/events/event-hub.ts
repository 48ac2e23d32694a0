import type { Clock } from "@vmferry/core";
import { isFinalEvent, type AgentEvent, type EventBody } from "@vmferry/protocol";
import { EventSubscription } from "./event-subscription.ts";
import { ProgressThrottle } from "./progress-throttle.ts";

export interface EventHubOptions {
  readonly clock: Clock;
  /** Events other than progress that are kept for replay. */
  readonly replayEventsMax?: number;
  /** Migrations of which the latest event is kept for replay, whatever became of the others. */
  readonly replayMigrationsMax?: number;
  readonly progressIntervalMs?: number;
  readonly queueEventsMax?: number;
}

export interface SubscribeOptions {
  /** Events with greater ids are replayed first; without it only what comes from now on counts. */
  readonly afterId?: number | undefined;
  /** Only this migration's events; the subscription ends with its final one. */
  readonly migrationId?: string | undefined;
}

/**
 * Where everything that happens goes through on its way to listeners.
 *
 * Publishing never waits: a listener reads from its own bounded queue. Ids grow for as long as the
 * hub lives and begin at the date in milliseconds, so that a listener which outlives a restart of
 * the agent still has a `Last-Event-ID` that lies before all that it has not seen. Should the date
 * have been set back, its id lies ahead of ours, and it gets everything.
 *
 * Published objects are kept as they are: whoever publishes one does not change it afterwards.
 */
export class EventHub {
  readonly #clock: Clock;
  readonly #replayEventsMax: number;
  readonly #replayMigrationsMax: number;
  readonly #queueEventsMax: number;
  readonly #throttle: ProgressThrottle;
  readonly #subscriptions = new Set<EventSubscription>();
  readonly #observers: ((event: AgentEvent) => void)[] = [];
  /** Everything but progress, ascending by id. */
  readonly #lifecycle: AgentEvent[] = [];
  /** The latest event of each migration, the longest unchanged first. */
  readonly #latest = new Map<string, AgentEvent>();
  #lastId: number;

  constructor(options: EventHubOptions) {
    this.#clock = options.clock;
    this.#replayEventsMax = options.replayEventsMax ?? 4096;
    this.#replayMigrationsMax = options.replayMigrationsMax ?? 2048;
    this.#queueEventsMax = options.queueEventsMax ?? 1024;
    this.#lastId = options.clock.date().getTime();
    this.#throttle = new ProgressThrottle({
      clock: options.clock,
      intervalMs: options.progressIntervalMs ?? 250,
      emit: (migration) => {
        this.#emit({ type: "migration.progress", migration });
      },
    });
  }

  get subscriptionCount(): number {
    return this.#subscriptions.size;
  }

  publish(body: EventBody): void {
    if (body.type === "migration.progress") {
      this.#throttle.offer(body.migration);
      return;
    }
    if ("migration" in body) {
      if (isFinalEvent(body)) this.#throttle.forget(body.migration.id);
      else this.#throttle.supersede(body.migration.id);
    }
    this.#emit(body);
  }

  subscribe({ afterId, migrationId }: SubscribeOptions = {}): EventSubscription {
    const options = {
      clock: this.#clock,
      queueEventsMax: this.#queueEventsMax,
      migrationId,
      onDetached: (detached: EventSubscription) => this.#subscriptions.delete(detached),
    };
    const replay = afterId === undefined ? [] : this.#replayAfter(afterId, migrationId);
    const subscription = new EventSubscription(options, replay);
    // Seen it all before: the final event is not news, and no other will come.
    const latest = migrationId === undefined ? undefined : this.#latest.get(migrationId);
    if (latest !== undefined && isFinalEvent(latest) && replay.length === 0) subscription.close();
    else if (!subscription.ended) this.#subscriptions.add(subscription);
    return subscription;
  }

  /** For the agent itself, as long as it lives: called with every event, and must not throw. */
  observe(observer: (event: AgentEvent) => void): void {
    this.#observers.push(observer);
  }

  /** Ends every subscription; what is published afterwards reaches nobody. */
  close(): void {
    this.#throttle.close();
    for (const subscription of [...this.#subscriptions]) subscription.close();
  }

  #emit(body: EventBody): void {
    this.#lastId += 1;
    const event: AgentEvent = { id: this.#lastId, at: this.#clock.date().toISOString(), ...body };
    if (event.type !== "migration.progress") this.#lifecycle.push(event);
    if (this.#lifecycle.length > this.#replayEventsMax) this.#lifecycle.shift();
    if ("migration" in event) this.#keepLatest(event.migration.id, event);
    for (const observer of this.#observers) observer(event);
    for (const subscription of [...this.#subscriptions]) subscription.offer(event);
  }

  #keepLatest(migrationId: string, event: AgentEvent): void {
    this.#latest.delete(migrationId);
    this.#latest.set(migrationId, event);
    if (this.#latest.size <= this.#replayMigrationsMax) return;
    const [longestUnchanged] = this.#latest.keys();
    if (longestUnchanged !== undefined) this.#latest.delete(longestUnchanged);
  }

  /** The kept events, and the latest of a migration also where it is progress or no longer kept. */
  #replayAfter(afterId: number, migrationId: string | undefined): AgentEvent[] {
    const fromId = afterId > this.#lastId ? 0 : afterId;
    const byId = new Map<number, AgentEvent>();
    for (const event of [...this.#lifecycle, ...this.#latest.values()]) {
      const about = "migration" in event ? event.migration.id : undefined;
      if (event.id > fromId && (migrationId === undefined || about === migrationId)) {
        byId.set(event.id, event);
      }
    }
    return [...byId.values()].sort((a, b) => a.id - b.id);
  }
}

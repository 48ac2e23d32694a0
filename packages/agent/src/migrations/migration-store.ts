import { assert, Deferred, type Clock } from "@vmferry/core";
import {
  isFinalPhase,
  type EventType,
  type FinalMigrationPhase,
  type MigrationError,
  type MigrationList,
  type MigrationObject,
  type MigrationPhase,
  type MigrationResult,
} from "@vmferry/protocol";
import type { EventHub } from "../events/event-hub.ts";
import { ProblemError } from "../problem-error.ts";
import { comparePlaces, formatListCursor, parseListCursor, type ListPlace } from "./list-cursor.ts";

export interface MigrationStoreOptions {
  readonly hub: EventHub;
  readonly clock: Clock;
  /** Finished migrations that are kept; the longest finished goes first. Active ones always stay. */
  readonly finishedMax?: number;
  /** How long a finished migration is kept. */
  readonly finishedMsMax?: number;
  /** Is told of what has ended, and of what is forgotten. */
  readonly history?: MigrationHistoryPort;
}

export interface MigrationHistoryPort {
  keep(object: MigrationObject): void;
  drop(id: string): void;
}

/** What a session may change without changing the phase. */
export type MigrationPatch = Partial<
  Pick<
    MigrationObject,
    "ram" | "disks" | "wire" | "faults" | "fallback" | "predictedDowntimeMs" | "etaMs" | "mayCancel"
  >
>;

export type MigrationOutcome =
  | { readonly phase: "completed"; readonly result: MigrationResult }
  | { readonly phase: "failed" | "cancelled"; readonly error: MigrationError };

export interface ListPage {
  readonly limit: number;
  readonly cursor?: string | undefined;
}

interface MigrationRecord {
  readonly place: ListPlace;
  readonly waiting: Set<Deferred>;
  object: MigrationObject;
  /** As an earlier life of the agent has written down its end; null where none has. */
  readonly earlier: MigrationObject | null;
}

const NO_HISTORY: MigrationHistoryPort = { keep: () => undefined, drop: () => undefined };

const FINAL_EVENTS = {
  completed: "migration.completed",
  failed: "migration.failed",
  cancelled: "migration.cancelled",
} as const satisfies Record<FinalMigrationPhase, EventType>;

/**
 * The migrations that an agent knows of. The session of a migration is the only one that changes
 * its object, through `update`, `phase` and `finish`; each of them tells the listeners. Objects are
 * replaced, never changed, so whoever got one keeps a picture of that moment.
 */
export class MigrationStore {
  readonly #options: Required<MigrationStoreOptions>;
  readonly #records = new Map<string, MigrationRecord>();
  /** Those that have ended, the longest ended first. */
  readonly #finished: { readonly id: string; readonly endedMs: number }[] = [];
  #ordinal = 0;
  /** Of all places. */
  #newestMs = 0;

  constructor(options: MigrationStoreOptions) {
    this.#options = { finishedMax: 1000, finishedMsMax: Infinity, history: NO_HISTORY, ...options };
  }

  /**
   * Lists what earlier lives of the agent have seen end, as far as it is not known yet. Nobody is told:
   * it has happened long ago. A session that finds such a migration still open goes on with it as with
   * any other, and one that comes to the same end changes nothing.
   */
  restore(objects: readonly MigrationObject[]): void {
    for (const object of objects) {
      if (this.#records.has(object.id)) continue;
      const place = this.#placeAt(Date.parse(object.phases[0]!.at));
      const record = { place, waiting: new Set<Deferred>(), object, earlier: object };
      this.#records.set(object.id, record);
      this.#ended(object.id, Date.parse(object.phases.at(-1)!.at));
    }
    this.#dropOld();
  }

  create(object: MigrationObject): void {
    assert(!this.#records.has(object.id), "a migration's id is used once");
    // The newest, also where the clock was set back.
    const place = this.#placeAt(Math.max(this.#options.clock.date().getTime(), this.#newestMs));
    const waiting = new Set<Deferred>();
    const record = { place, waiting, object, earlier: null };
    this.#records.set(object.id, record);
    if (isFinalPhase(object.phase)) this.#publishFinal(record, object.phase);
    else this.#options.hub.publish({ type: "migration.phase", migration: object });
  }

  /**
   * One that is in doubt may be shown before anybody can go on with it. What an earlier life has seen
   * end stays as that has left it until its session says otherwise, and is not forgotten before.
   */
  createUnlessKnown(object: MigrationObject): void {
    const record = this.#records.get(object.id);
    if (record === undefined) this.create(object);
    else if (record.object === record.earlier) this.#isNotOver(object.id);
  }

  has(id: string): boolean {
    return this.#records.has(id);
  }

  /** Listeners get the result as progress, at the pace that suits them: call it as often as apt. */
  update(id: string, patch: (current: MigrationObject) => MigrationPatch): void {
    const record = this.#active(id);
    record.object = { ...record.object, ...patch(record.object) };
    this.#options.hub.publish({ type: "migration.progress", migration: record.object });
  }

  /** Enters a phase, together with what changes in the same instant, such as `mayCancel`. */
  phase(
    id: string,
    phase: Exclude<MigrationPhase, FinalMigrationPhase | "in-doubt">,
    patch: MigrationPatch = {},
  ): void {
    const record = this.#active(id);
    record.object = { ...this.#entered(record.object, phase), ...patch, error: null };
    this.#options.hub.publish({ type: "migration.phase", migration: record.object });
  }

  /** Nobody may act by himself any more; `detail` says what is known and what to do. */
  inDoubt(id: string, detail: string): void {
    const record = this.#active(id);
    if (record.object.phase === "in-doubt" && record.object.error?.detail === detail) return;
    const error = { code: "in-doubt", detail } as const;
    record.object = { ...this.#entered(record.object, "in-doubt"), error, mayCancel: false };
    this.#options.hub.publish({ type: "migration.phase", migration: record.object });
  }

  /** One pass over memory, or one round over the disks, is complete. */
  pass(id: string, patch: MigrationPatch = {}): void {
    const record = this.#active(id);
    record.object = { ...record.object, ...patch };
    this.#options.hub.publish({ type: "migration.pass", migration: record.object });
  }

  /** Something degraded and the migration goes on. */
  warn(id: string, warning: MigrationError): void {
    const migration = this.#active(id).object;
    this.#options.hub.publish({ type: "migration.warning", migration, warning });
  }

  /** The last change of a migration: frees the guest for another one and ends every wait. */
  finish(id: string, outcome: MigrationOutcome, patch: MigrationPatch = {}): void {
    const { object, earlier } = this.#record(id);
    const { phase, ...reason } = outcome;
    // A journal does not tell a migration that was cancelled from one that has failed.
    const isTheSame =
      earlier !== null && (earlier.phase === "completed") === (phase === "completed");
    if (isTheSame && object === earlier) {
      this.#isNotOver(id);
      this.#ended(id, Date.parse(earlier.phases.at(-1)!.at));
      return;
    }
    const record = this.#active(id);
    const final = { etaMs: null, mayCancel: false, error: null, ...reason };
    record.object = isTheSame
      ? earlier
      : { ...this.#entered(record.object, phase), ...patch, ...final };
    this.#publishFinal(record, isTheSame ? (earlier.phase as FinalMigrationPhase) : phase);
  }

  get(id: string): MigrationObject {
    return this.#record(id).object;
  }

  /** The migration of this guest that has not ended, if there is one. */
  activeOf(guest: string): MigrationObject | null {
    for (const { object } of this.#records.values()) {
      if (object.guest === guest && !isFinalPhase(object.phase)) return object;
    }
    return null;
  }

  /** Newest first. A page stays what it is while migrations begin. */
  list({ limit, cursor }: ListPage): MigrationList {
    this.#dropOld();
    const before = cursor === undefined ? null : parseListCursor(cursor);
    const rest = [...this.#records.values()]
      .filter(({ place }) => before === null || comparePlaces(place, before) < 0)
      .sort((a, b) => comparePlaces(b.place, a.place));
    const page = rest.slice(0, limit);
    const last = page.at(-1);
    const nextCursor =
      last !== undefined && rest.length > page.length ? formatListCursor(last.place) : null;
    return { migrations: page.map(({ object }) => object), nextCursor };
  }

  /** The object as soon as it is final, or as it is when the time is up or the caller has gone. */
  async wait(id: string, timeoutMs: number, signal?: AbortSignal): Promise<MigrationObject> {
    const record = this.#record(id);
    if (isFinalPhase(record.object.phase) || signal?.aborted === true) return record.object;
    const settled = new Deferred();
    const settle = (): void => {
      settled.resolve();
    };
    const callOff = this.#options.clock.after(timeoutMs, settle);
    signal?.addEventListener("abort", settle, { once: true });
    record.waiting.add(settled);
    await settled.promise;
    record.waiting.delete(settled);
    signal?.removeEventListener("abort", settle);
    callOff();
    return record.object;
  }

  #placeAt(atMs: number): ListPlace {
    this.#ordinal += 1;
    this.#newestMs = Math.max(this.#newestMs, atMs);
    return { atMs, ordinal: this.#ordinal };
  }

  #record(id: string): MigrationRecord {
    this.#dropOld();
    const record = this.#records.get(id);
    if (record !== undefined) return record;
    throw new ProblemError(`This agent knows no migration ${id}.`, { code: "migration-not-found" });
  }

  #active(id: string): MigrationRecord {
    const record = this.#record(id);
    if (record.object === record.earlier) this.#reopen(record, record.earlier);
    assert(!isFinalPhase(record.object.phase), "a finished migration does not change");
    return record;
  }

  /** A journal says that it is not over, and the journal is right. */
  #reopen(record: MigrationRecord, { phases, ...earlier }: MigrationObject): void {
    const before = phases.slice(0, -1);
    const phase = before.at(-1)?.phase ?? "preparing";
    record.object = { ...earlier, phase, phases: before, result: null, error: null };
    this.#isNotOver(earlier.id);
  }

  #isNotOver(id: string): void {
    const index = this.#finished.findIndex((finished) => finished.id === id);
    if (index >= 0) this.#finished.splice(index, 1);
  }

  /** `atMs` is a date; what is kept is how long ago that is, so that a clock that is set drops nothing. */
  #ended(id: string, atMs: number): void {
    const { clock } = this.#options;
    const endedMs = clock.nowMs() - Math.max(0, clock.date().getTime() - atMs);
    const after = this.#finished.findLastIndex((other) => other.endedMs <= endedMs);
    this.#finished.splice(after + 1, 0, { id, endedMs });
  }

  #entered(object: MigrationObject, phase: MigrationPhase): MigrationObject {
    const at = this.#options.clock.date().toISOString();
    return { ...object, phase, phases: [...object.phases, { phase, at }] };
  }

  #publishFinal(record: MigrationRecord, phase: FinalMigrationPhase): void {
    const { hub, clock, history } = this.#options;
    this.#ended(record.object.id, clock.date().getTime());
    if (record.object !== record.earlier) history.keep(record.object);
    this.#dropOld();
    hub.publish({ type: FINAL_EVENTS[phase], migration: record.object });
    for (const waiting of record.waiting) waiting.resolve();
  }

  /** Whenever somebody looks: a timer would keep no promise that this does not. */
  #dropOld(): void {
    const { finishedMax, finishedMsMax, clock, history } = this.#options;
    for (;;) {
      const [oldest] = this.#finished;
      if (oldest === undefined) return;
      const isDue = clock.nowMs() - oldest.endedMs > finishedMsMax;
      if (!isDue && this.#finished.length <= finishedMax) return;
      this.#finished.shift();
      this.#records.delete(oldest.id);
      history.drop(oldest.id);
    }
  }
}

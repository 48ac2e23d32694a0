import type { Clock } from "@vmferry/core";
import type { MigrationObject } from "@vmferry/protocol";

export interface ProgressThrottleOptions {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly emit: (migration: MigrationObject) => void;
}

interface Pace {
  lastMs: number;
  waiting: { migration: MigrationObject; readonly callOff: () => void } | null;
}

/**
 * At most one progress event an interval and migration. What comes in between is not lost but
 * overtaken: the latest one is emitted when the interval ends.
 */
export class ProgressThrottle {
  readonly #options: ProgressThrottleOptions;
  readonly #paces = new Map<string, Pace>();

  constructor(options: ProgressThrottleOptions) {
    this.#options = options;
  }

  offer(migration: MigrationObject): void {
    const { clock, intervalMs } = this.#options;
    const nowMs = clock.nowMs();
    const pace = this.#paces.get(migration.id);
    if (pace === undefined) {
      this.#paces.set(migration.id, { lastMs: nowMs, waiting: null });
      this.#options.emit(migration);
      return;
    }
    if (pace.waiting !== null) {
      pace.waiting.migration = migration;
      return;
    }
    const remainingMs = pace.lastMs + intervalMs - nowMs;
    if (remainingMs <= 0) {
      pace.lastMs = nowMs;
      this.#options.emit(migration);
      return;
    }
    const callOff = clock.after(remainingMs, () => {
      this.#emitWaiting(pace);
    });
    pace.waiting = { migration, callOff };
  }

  /** Another event tells more than what waits: emitting it later would tell an older state. */
  supersede(migrationId: string): void {
    const pace = this.#paces.get(migrationId);
    pace?.waiting?.callOff();
    if (pace !== undefined) pace.waiting = null;
  }

  /** The migration has ended. */
  forget(migrationId: string): void {
    this.supersede(migrationId);
    this.#paces.delete(migrationId);
  }

  close(): void {
    for (const migrationId of [...this.#paces.keys()]) this.forget(migrationId);
  }

  #emitWaiting(pace: Pace): void {
    const { waiting } = pace;
    if (waiting === null) return;
    pace.waiting = null;
    pace.lastMs = this.#options.clock.nowMs();
    this.#options.emit(waiting.migration);
  }
}

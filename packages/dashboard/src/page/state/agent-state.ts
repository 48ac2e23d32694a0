/** What the agent has said of its guests and migrations; whoever shows it is told of changes. */
import type { AgentEvent, GuestObject, MigrationObject } from "@vmferry/protocol";

const MIGRATIONS_MAX = 500;

export class AgentState {
  readonly #onChange: () => void;
  #guests: readonly GuestObject[] | null = null;
  /** Newest first. */
  #migrations: MigrationObject[] | null = null;

  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /** Null: not known yet. */
  get guests(): readonly GuestObject[] | null {
    return this.#guests;
  }

  get migrations(): readonly MigrationObject[] | null {
    return this.#migrations;
  }

  setGuests(guests: readonly GuestObject[]): void {
    this.#guests = guests;
    this.#onChange();
  }

  setMigrations(migrations: readonly MigrationObject[]): void {
    this.#migrations = [...migrations];
    this.#onChange();
  }

  apply(event: AgentEvent): void {
    if (!("migration" in event) || this.#migrations === null) return;
    const { migration } = event;
    const index = this.#migrations.findIndex(({ id }) => id === migration.id);
    const known = this.#migrations[index];
    if (known === undefined) {
      this.#migrations.unshift(migration);
      this.#migrations.length = Math.min(this.#migrations.length, MIGRATIONS_MAX);
    } else this.#migrations[index] = newerOf(known, migration);
    this.#onChange();
  }
}

/** A replayed event tells of the past. An object with fewer phases is older. */
export function newerOf(known: MigrationObject, came: MigrationObject): MigrationObject {
  return came.phases.length < known.phases.length ? known : came;
}

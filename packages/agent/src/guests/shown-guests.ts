import type { GuestState } from "@vmferry/protocol";
import type { Guest } from "./guest.ts";

/** Of guests that are over, in each of these states: the list is not paged. Migrations tell of more. */
const OVER_MAX = 100;
/** Nobody is to act on those any more. */
const OVER: readonly GuestState[] = ["handed-off", "stopped"];

/**
 * The guests of a host, by their names: every one that has a QEMU, that a migration is at work on, or
 * that is in doubt; and of the others the last that left, and the last that stopped.
 */
export class ShownGuests {
  /** Those whose QEMU has ended come in the order of their ends. */
  readonly #byName = new Map<string, Guest>();

  get(name: string): Guest | undefined {
    return this.#byName.get(name);
  }

  all(): Guest[] {
    return [...this.#byName.values()];
  }

  /** Takes the place of one of the same name. */
  add(guest: Guest): void {
    this.#byName.set(guest.name, guest);
    void guest.exited.then(() => {
      this.#ended(guest);
    });
  }

  remove(guest: Guest): void {
    if (this.#byName.get(guest.name) === guest) this.#byName.delete(guest.name);
  }

  #ended(guest: Guest): void {
    if (this.#byName.get(guest.name) !== guest) return;
    this.#byName.delete(guest.name);
    this.#byName.set(guest.name, guest);
    for (const state of OVER) {
      const over = this.all().filter((each) => isOver(each) && each.state === state);
      for (const old of over.slice(0, -OVER_MAX)) this.#byName.delete(old.name);
    }
  }
}

function isOver({ alive, busyWith }: Guest): boolean {
  return !alive && busyWith === null;
}

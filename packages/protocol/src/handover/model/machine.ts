/**
 * One production machine as a table that fills itself: a search asks the same question millions of
 * times. The actions of a step are kept as a list of which some are still to be carried out, since
 * an agent can die between any two of them.
 */
import { OwnershipError } from "../ownership-error.ts";
import { Names } from "./names.ts";

/** Numbers of a state and of the actions that are still to be carried out. */
export interface Outcome {
  readonly state: number;
  readonly pending: number;
}

interface Step<State, Action> {
  readonly state: State;
  readonly actions: readonly Action[];
}

/** Room for the numbers in an encoded world. */
const COUNT_MAX = 256;

export class Machine<State, Event, Action extends object> {
  readonly states = new Names<State>(COUNT_MAX);
  readonly events = new Names<Event>(COUNT_MAX);
  readonly #pending = new Names<readonly Action[]>(COUNT_MAX);
  readonly #outcomes: (Outcome | null | undefined)[] = [];
  readonly #next: (state: State, event: Event) => Step<State, Action>;
  readonly #matters: (action: Action) => boolean;

  /** Number 0 is `initial`, and the empty list. Actions that do not matter are left out. */
  constructor(
    initial: State,
    next: (state: State, event: Event) => Step<State, Action>,
    matters: (action: Action) => boolean = () => true,
  ) {
    this.#next = next;
    this.#matters = matters;
    this.states.idOf(initial);
    this.#pending.idOf([]);
  }

  /** Null where the event is illegal; then a session logs it and goes on. */
  next(state: number, event: number): Outcome | null {
    const at = state * COUNT_MAX + event;
    return (this.#outcomes[at] ??= this.#ask(state, event));
  }

  number(step: Step<State, Action>): Outcome {
    // A reason is for people: worlds that differ in it alone are one.
    const actions = step.actions
      .filter(this.#matters)
      .map((action) => ("code" in action ? { ...action, code: "" } : action));
    return { state: this.states.idOf(step.state), pending: this.#pending.idOf(actions) };
  }

  actions(pending: number): readonly Action[] {
    return this.#pending.at(pending);
  }

  rest(pending: number): number {
    return this.#pending.idOf(this.#pending.at(pending).slice(1));
  }

  #ask(state: number, event: number): Outcome | null {
    try {
      return this.number(this.#next(this.states.at(state), this.events.at(event)));
    } catch (error) {
      if (error instanceof OwnershipError) return null;
      throw error;
    }
  }
}

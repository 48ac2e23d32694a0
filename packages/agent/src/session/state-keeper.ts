/**
 * The one owner of a pure state machine: takes events one at a time, carries out the actions of a
 * step in order before the next event gets its turn, and lets others wait for a phase.
 */
import { Deferred } from "@vmferry/core";

export interface StateKeeperOptions<State, Event, Action> {
  readonly initial: State;
  readonly next: (
    state: State,
    event: Event,
  ) => { readonly state: State; readonly actions: readonly Action[] };
  readonly act: (action: Action) => void | Promise<void>;
  /** Called with every change, before its actions. */
  readonly onState: (state: State, event: Event) => void;
}

export class StateKeeper<State extends { readonly phase: string }, Event, Action> {
  readonly #options: StateKeeperOptions<State, Event, Action>;
  #state: State;
  #turn: Promise<void> = Promise.resolve();
  #changed = new Deferred();

  constructor(options: StateKeeperOptions<State, Event, Action>) {
    this.#options = options;
    this.#state = options.initial;
  }

  get state(): State {
    return this.#state;
  }

  /** Resolves when the event and its actions are done; rejects when it is illegal or one failed. */
  apply(event: Event): Promise<void> {
    const done = this.#turn.then(() => this.#take(event));
    // The next event gets its turn whatever became of this one.
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /** Resolves with the state as soon as its phase is one of `phases`. */
  async until<P extends State["phase"]>(...phases: readonly P[]): Promise<State & { phase: P }> {
    while (!(phases as readonly string[]).includes(this.#state.phase)) {
      await this.#changed.promise;
    }
    return this.#state as State & { phase: P };
  }

  /** Resolves when everything that was asked for so far is done. */
  idle(): Promise<void> {
    return this.#turn;
  }

  async #take(event: Event): Promise<void> {
    const { state, actions } = this.#options.next(this.#state, event);
    const before = this.#state;
    this.#state = state;
    if (state !== before) {
      this.#options.onState(state, event);
      const changed = this.#changed;
      this.#changed = new Deferred();
      changed.resolve();
    }
    for (const action of actions) await this.#options.act(action);
  }
}

/**
 * The one owner of a pure state machine: takes events one at a time, carries out the actions of a
 * step in order before the next event gets its turn, and lets others wait for a phase.
 */
import { Deferred } from "@vmferry/core";

/**
 * What becomes of a step when one of its actions has failed; those behind it are left out.
 *
 *   go-on      the state stays the new one, and the next event gets its turn
 *   take-back  nothing of the step was done: the state is the old one again
 *   halt       it is not known what was done: no event is taken any more
 */
export type AfterFailure = "go-on" | "take-back" | "halt";

export interface StateKeeperOptions<State, Event, Action> {
  readonly initial: State;
  readonly next: (
    state: State,
    event: Event,
  ) => { readonly state: State; readonly actions: readonly Action[] };
  readonly act: (action: Action) => void | Promise<void>;
  /** Called with every change, before its actions; the event is null for one that is taken back. */
  readonly onState: (state: State, event: Event | null) => void;
  /** `go-on` where there is none. */
  readonly afterFailure?: (action: Action, error: unknown) => AfterFailure;
}

export class StateKeeper<State extends { readonly phase: string }, Event, Action> {
  readonly #options: StateKeeperOptions<State, Event, Action>;
  #state: State;
  #turn: Promise<void> = Promise.resolve();
  #changed = new Deferred();
  readonly #halted = new Deferred<never>();
  #halt: { readonly cause: unknown } | null = null;

  constructor(options: StateKeeperOptions<State, Event, Action>) {
    this.#options = options;
    this.#state = options.initial;
    this.#halted.promise.catch(() => undefined);
  }

  get state(): State {
    return this.#state;
  }

  get isHalted(): boolean {
    return this.#halt !== null;
  }

  /** Carries out what a state that was not reached by an event comes with. */
  perform(actions: readonly Action[]): Promise<void> {
    return this.#inTurn(() => this.#act(actions, this.#state));
  }

  /**
   * Resolves when the event and its actions are done; rejects when it is illegal, an action failed,
   * or an earlier one has halted everything.
   */
  apply(event: Event): Promise<void> {
    return this.#inTurn(() => this.#take(event));
  }

  /**
   * Resolves with the state as soon as its phase is one of `phases`. Rejects with the reason when
   * everything was halted, for then it stays as it is.
   */
  async until<P extends State["phase"]>(...phases: readonly P[]): Promise<State & { phase: P }> {
    while (!(phases as readonly string[]).includes(this.#state.phase) || this.isHalted) {
      await Promise.race([this.#changed.promise, this.#halted.promise]);
    }
    return this.#state as State & { phase: P };
  }

  /** Resolves when everything that was asked for so far is done. */
  idle(): Promise<void> {
    return this.#turn;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(() => {
      if (this.#halt !== null) throw this.#halt.cause;
      return work();
    });
    // The next event gets its turn whatever became of this one.
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #take(event: Event): Promise<void> {
    const { state, actions } = this.#options.next(this.#state, event);
    const before = this.#state;
    this.#enter(state, event);
    await this.#act(actions, before);
  }

  async #act(actions: readonly Action[], before: State): Promise<void> {
    for (const action of actions) {
      try {
        await this.#options.act(action);
      } catch (error) {
        const after = this.#options.afterFailure?.(action, error) ?? "go-on";
        if (after === "take-back") this.#enter(before, null);
        if (after === "halt") this.#stop(error);
        throw error;
      }
    }
  }

  #enter(state: State, event: Event | null): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState(state, event);
    const changed = this.#changed;
    this.#changed = new Deferred();
    changed.resolve();
  }

  #stop(cause: unknown): void {
    this.#halt = { cause };
    this.#halted.reject(cause);
  }
}

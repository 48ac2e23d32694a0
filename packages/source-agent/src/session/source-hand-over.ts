/**
 * Who owns a guest that leaves this host: the pure transitions of `@vmferry/protocol`, with the
 * journal behind them and what they ask for carried out. An attempt goes through all of it, a
 * restarted agent through the rest of it.
 */
import { Deferred, growingDelay, messageOf, sleep, unreachable, type Clock } from "@vmferry/core";
import {
  JournalError,
  ProblemError,
  StateKeeper,
  type AfterFailure,
  type Decision,
  type Failure,
  type GivenBack,
  type Guest,
  type Journal,
  type Logger,
  type WitnessPort,
} from "@vmferry/agent";
import {
  mayRollBack,
  nextSourceOwnership,
  OwnershipError,
  type ControlMessageOf,
  type SourceAction,
  type SourceEvent,
  type SourceOwnership,
  type SourceStep,
  type StunRef,
} from "@vmferry/protocol";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { ControlLink } from "./control-link.ts";
import { SETTLED_BY_WITNESS } from "./doubt-text.ts";
import { journalRecordOf } from "./journal-records.ts";
import { SessionError } from "./session-error.ts";
import { eventOf } from "./source-event.ts";
import { Standstill } from "./standstill.ts";

/** The guest as far as a hand-over is concerned. */
export type MovingGuest = Pick<
  Guest,
  "name" | "epoch" | "alive" | "owned" | "handedOff" | "inDoubt" | "end"
>;

export interface SourceHandOverPorts {
  readonly guest: MovingGuest;
  readonly qemu: Pick<SourceQemu, "resume" | "cont" | "halt" | "onEvent">;
  readonly journal: Pick<Journal<"source">, "append" | "incarnation">;
  /** The configured name of the dest. */
  readonly peer: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Null until the session has come that far. */
  readonly link: () => ControlLink | null;
  readonly failure: () => Failure | null;
  /**
   * What was under way is ended: QEMU sees its migration socket closed, disks may be written to. A guest
   * that is `suspect` is not started.
   */
  readonly giveBack: () => Promise<GivenBack>;
  readonly forwardShut: () => void;
  /** Whose word about this stun is the last; null where there is none to ask. */
  readonly witness: () => Pick<WitnessPort, "decide"> | null;
  /** Why the guest comes back although it was handed over, where the dest has not said so. */
  readonly onBack: (failure: Failure) => void;
  /** What of the guest is here alone, for a person to read; null where the dest lacks nothing. */
  readonly lacks: () => Promise<string | null>;
  readonly onState: (state: SourceOwnership) => void;
  /** An answer of the dest could not be followed. */
  readonly onFailed: (error: unknown) => void;
}

/** Between two questions after a lost link. */
const ASK_AGAIN = { msMin: 100, msMax: 5000 };
/** Between two attempts to see the guest running again. */
const RESUME_AGAIN = { msMin: 200, msMax: 10_000 };
/** A dest that has not answered for so long may have to be done without. */
const OVERDUE_MS = 10_000;

export interface AwaitAnswerOptions {
  readonly stopped: () => boolean;
  readonly onLost: (reason: Error) => void;
  /** Repeated; `known` is what the witness has said. */
  readonly onOverdue: (known: Decision | null) => void;
}

export class SourceHandOver {
  readonly #ports: SourceHandOverPorts;
  readonly #keeper: StateKeeper<SourceOwnership, SourceEvent, SourceAction>;
  /** The agent stops: what the dest still says is for the next life to hear. */
  #gaveUp = false;
  readonly #stopping = new Deferred();
  readonly #leftOpen = new Deferred();
  readonly #standstill: Standstill;
  #stuckBecause: string | null = null;
  /** It has run since SHUT was forwarded: what the dest has loaded may be older than its disks. */
  #wasStartedByHand = false;
  /** `out`: TOKEN has gone out, or may have in an earlier life. `withheld`: it never does. */
  #token: "due" | "out" | "withheld";

  constructor(ports: SourceHandOverPorts, initial: SourceOwnership) {
    this.#ports = ports;
    this.#token = initial.phase === "owner" || mayRollBack(initial) ? "due" : "out";
    this.#standstill = new Standstill({
      ...ports,
      isDue: () => wasHandedOver(this.state) || this.state.phase === "unclear",
      stopped: this.#stopping.promise,
    });
    this.#keeper = new StateKeeper<SourceOwnership, SourceEvent, SourceAction>({
      initial,
      next: nextSourceOwnership,
      act: (action) => this.#perform(action),
      onState: (state, event) => {
        ports.logger.info({ ownership: state.phase, event: event?.kind ?? "undone" }, "ownership");
        ports.onState(state);
      },
      afterFailure,
    });
    ports.qemu.onEvent(({ name }) => {
      if (name === "RESUME") this.#startedByNobody();
    });
  }

  get state(): SourceOwnership {
    return this.#keeper.state;
  }

  /** Nothing can be recorded any more: only an agent that is started anew goes on. */
  get isHalted(): boolean {
    return this.#keeper.isHalted;
  }

  /** Why the guest, which is to run here, is not seen running yet; `onState` tells when that changes. */
  get stuckBecause(): string | null {
    return this.#stuckBecause;
  }

  /** The agent stops: a guest that is not seen running again is for the next life to try. */
  stop(): void {
    this.#stopping.resolve();
  }

  /** Resolves when the hand-over stays open because of `stop`. */
  get leftOpen(): Promise<void> {
    return this.#leftOpen.promise;
  }

  apply(event: SourceEvent): Promise<void> {
    return this.#keeper.apply(event);
  }

  answered(message: ControlMessageOf<"prepared" | "taken" | "complete" | "refused">): void {
    if (!this.#gaveUp) this.#enqueue(eventOf(message));
  }

  perform(actions: SourceStep["actions"]): Promise<void> {
    return this.#keeper.perform(actions);
  }

  until(...phases: readonly SourceOwnership["phase"][]): Promise<unknown> {
    return this.#keeper.until(...phases);
  }

  idle(): Promise<void> {
    return this.#keeper.idle();
  }

  /** The fields by which the dest tells this stun from another, and this source. */
  about(stun: StunRef): StunRef & { readonly incarnation: string } {
    return { ...stun, incarnation: this.#ports.journal.incarnation };
  }

  /**
   * After the hand-over: waits until the dest has said what became of the guest. When the link is
   * lost it is made anew and the question repeated, for as long as it takes; no time-out decides.
   */
  async awaitAnswer(options: AwaitAnswerOptions): Promise<void> {
    const over = new AbortController();
    const overdue = this.#followOverdue(options, over.signal);
    try {
      await this.#askUntilAnswered(options);
    } finally {
      over.abort();
      await overdue;
    }
    this.#gaveUp = true;
  }

  async #askUntilAnswered({ stopped, onLost }: AwaitAnswerOptions): Promise<void> {
    const { clock } = this.#ports;
    const answered = this.#keeper.until("done", "owner", "reclaimed");
    answered.catch(() => undefined);
    const nextDelayMs = growingDelay(ASK_AGAIN);
    while (!stopped()) {
      const outcome = await Promise.race([answered, this.#ports.link()!.closed]);
      if (!(outcome instanceof Error)) return;
      onLost(outcome);
      await Promise.race([answered, sleep(clock, nextDelayMs())]);
      if (stopped()) break;
      await this.#askAgain();
    }
  }

  /** Whether or not the dest can be reached: one that could answer may have nothing to say. */
  async #followOverdue(options: AwaitAnswerOptions, signal: AbortSignal): Promise<void> {
    const { clock } = this.#ports;
    const { stopped, onOverdue } = options;
    let known: Decision | null = null;
    await sleep(clock, OVERDUE_MS, signal);
    while (!signal.aborted && !stopped() && this.state.phase === "handed-off") {
      onOverdue(known);
      known = (await this.#askWitness()) ?? known;
      await sleep(clock, ASK_AGAIN.msMax, signal);
    }
  }

  /** Throws `not-in-doubt` where there is nothing for a person to decide. */
  async settle(owner: "source" | "dest"): Promise<void> {
    const { phase } = this.state;
    const may =
      phase === "handed-off" || phase === "unclear" || (phase === "released" && owner === "dest");
    if (!may || this.isHalted) {
      throw new ProblemError(this.#whyNot(phase), { code: "not-in-doubt" });
    }
    const lacking = owner === "dest" ? await this.#ports.lacks() : null;
    if (phase === "released" && lacking !== null) {
      throw new ProblemError(lacking, { code: "not-in-doubt" });
    }
    this.#ports.logger.warn({ owner, phase, lacking }, "an operator settles whose the guest is");
    const word = owner === "source" ? await this.#askWitness() : null;
    if (word === "taken") {
      throw new ProblemError("The witness says that the dest has taken the guest.", {
        code: "not-in-doubt",
      });
    }
    // By its word the guest is back already.
    if (word === "revoked" && phase !== "unclear") return;
    try {
      await this.#keeper.apply(
        owner === "source"
          ? { kind: "settled", owner }
          : { kind: "settled", owner, follows: lacking !== null },
      );
    } catch (error) {
      if (!(error instanceof OwnershipError)) throw error;
      const why = `It was settled meanwhile: the hand-over is ${this.state.phase}.`;
      throw new ProblemError(why, { code: "not-in-doubt" }, { cause: error });
    }
  }

  #whyNot(phase: SourceOwnership["phase"]): string {
    if (phase === "released") {
      return "The dest has said that it took the guest: what is here is out of date.";
    }
    return this.#stuckBecause === null
      ? `Nothing is in doubt here: the hand-over is ${phase}.`
      : `The guest is the source's, and it is tried again until it runs: ${this.#stuckBecause}`;
  }

  async #askAgain(): Promise<void> {
    const { state } = this;
    if (state.phase !== "handed-off" && state.phase !== "released") return;
    const isBack = await this.#ports.link()!.resume(this.about(state.stun));
    if (isBack) await this.#keeper.apply({ kind: "failed" });
  }

  /** Where the dest has not taken the guest, it never will from here on. */
  async #askWitness(): Promise<Decision | null> {
    const { witness, journal, logger, onBack } = this.#ports;
    const { state } = this;
    const asked = witness();
    if (asked === null || (state.phase !== "handed-off" && state.phase !== "unclear")) return null;
    if (state.stun === null) return null;
    try {
      const word = await asked.decide(state.stun, "revoked", journal.incarnation);
      logger.warn({ word }, "the witness was asked for the last word");
      // From `unclear` a person alone leads on; elsewhere it may be settled by now.
      if (word === "taken" || this.state.phase !== "handed-off") return word;
      onBack(SETTLED_BY_WITNESS);
      await this.#keeper.apply({ kind: "revoked", stun: state.stun });
      return word;
    } catch (error) {
      logger.warn({ reason: messageOf(error) }, "the witness has no word yet");
      return null;
    }
  }

  async #perform(action: SourceAction): Promise<void> {
    const { guest, qemu, link, failure } = this.#ports;
    switch (action.do) {
      case "record":
        await this.#record(action);
        return;
      case "send-token":
        if (this.#wasStartedByHand && this.#token === "due") this.#withhold();
        if (this.#token === "withheld") return;
        this.#token = "out";
        link()?.send({ kind: "token", ...this.about(action.stun) });
        return;
      case "send-abort": {
        const { code, detail } = failure() ?? { code: "agent-stopped", detail: "" };
        link()?.send({ kind: "abort", ...this.about(action.stun), code, text: detail });
        return;
      }
      case "forward-shut":
        this.#ports.forwardShut();
        return;
      case "roll-back":
        await this.#resume(() => qemu.resume());
        return;
      case "resume-guest":
        await this.#resume(() => qemu.cont());
        return;
      case "halt-guest":
        this.#ports.logger.error("a guest that was handed over runs here: stopping it");
        await this.#standstill.keep();
        return;
      case "quit-guest":
        await guest.end();
        return;
      default:
        unreachable(action);
    }
  }

  async #record(action: SourceAction & { do: "record" }): Promise<void> {
    const { failure, journal, peer, witness, clock, logger } = this.#ports;
    const reason = failure()?.code ?? "peer-refused";
    const sinceMs = clock.nowMs();
    await journal.append(journalRecordOf(action, { peer, witness: witness() !== null, reason }));
    const { record, epoch } = action;
    logger.info({ record, epoch, tookMs: clock.nowMs() - sinceMs }, "ownership record");
  }

  /**
   * Until the guest was seen running, is dead, or stays stopped for a person: nobody else would start
   * it. `kept` may only be recorded then.
   */
  async #resume(start: () => Promise<void>): Promise<void> {
    const { guest, clock, logger, giveBack } = this.#ports;
    const nextDelayMs = growingDelay(RESUME_AGAIN);
    for (;;) {
      try {
        if ((await giveBack()) !== "suspect") await start();
        break;
      } catch (error) {
        logger.error({ err: error }, "the guest is not seen running again yet");
        if (!guest.alive) break;
        this.#setStuck(messageOf(error));
      }
      await Promise.race([sleep(clock, nextDelayMs()), this.#stopping.promise]);
      if (this.#stopping.settled) {
        this.#leftOpen.resolve();
        return;
      }
    }
    this.#stuckBecause = null;
    this.#enqueue({ kind: "resumed" });
  }

  #setStuck(reason: string): void {
    this.#stuckBecause = reason;
    this.#ports.onState(this.state);
  }

  #enqueue(event: SourceEvent): void {
    this.#keeper.apply(event).catch((error: unknown) => {
      this.#ports.logger.error({ err: error }, "an event could not be followed");
      this.#ports.onFailed(error);
    });
  }

  /**
   * Somebody else has typed `cont`. Before TOKEN is out the guest is still ours and stays, for its
   * dest would have it as it was before; after that what runs here is not the guest any more.
   *
   * QEMU is not asked whether it runs before TOKEN goes out: the event is on the same socket that the
   * answer would come by, and has had all the time in which the record became durable. Whoever types
   * `cont` behind that would come behind an answer, too.
   */
  #startedByNobody(): void {
    const { logger, onFailed } = this.#ports;
    const { state } = this;
    if (state.phase === "shutting") {
      this.#wasStartedByHand = true;
      onFailed(new SessionError(RAN_ON, { code: "source-qemu-failed" }));
      this.#enqueue({ kind: "failed" });
    } else if (wasHandedOver(state)) {
      this.#wasStartedByHand = true;
      logger.error({ phase: state.phase }, "a guest that was handed over was started by hand");
      void this.#standstill.keep();
    }
  }

  /** The dest never gets the guest: without a token it does not take it. */
  #withhold(): void {
    this.#token = "withheld";
    this.#ports.onBack({ code: "source-qemu-failed", detail: RAN_ON });
    this.#enqueue({ kind: "withheld" });
  }
}

/** Also a QEMU that gives up so late says RESUME. */
const RAN_ON =
  "the guest ran on here while it was being handed over: somebody has started it, or its QEMU has " +
  "given the migration up; it stays here";

function wasHandedOver(state: SourceOwnership): boolean {
  if (state.phase === "unclear") return state.incarnation !== null;
  return state.phase === "handed-off" || state.phase === "released" || state.phase === "done";
}

/**
 * Where a record was evidently not written, its step has not happened: the guest stays here. Where
 * that is not known, neither the step nor its opposite may be done. That an attempt was rolled back
 * is no more than good to know.
 */
function afterFailure(action: SourceAction, error: unknown): AfterFailure {
  if (action.do !== "record" || action.record === "kept") return "go-on";
  const undone = action.record === "begin" || action.record === "handed-off";
  return undone && isUnwritten(error) ? "take-back" : "halt";
}

function isUnwritten(error: unknown): boolean {
  if (!(error instanceof JournalError)) return false;
  const { detail } = error;
  return detail.code === "journal-failed"
    ? detail.recorded === "no"
    : detail.code === "journal-full";
}

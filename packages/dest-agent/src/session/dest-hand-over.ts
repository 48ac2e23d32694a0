/**
 * Who owns a guest that comes to this host: the pure transitions of `@vmferry/protocol`, with the
 * journal behind them and what they ask for carried out. The dest is never in doubt: until it has
 * taken the guest it may refuse at any time, and its QEMU is started by a token alone.
 */
import { messageOf, unreachable } from "@vmferry/core";
import {
  asProblemCode,
  failureOf,
  ProblemError,
  StateKeeper,
  type Failure,
  type MessageLink,
} from "@vmferry/agent";
import {
  CloseCode,
  nextDestOwnership,
  OwnershipError,
  sameStun,
  stateDigest,
  type ControlMessage,
  type DestAction,
  type DestEvent,
  type DestOwnership,
  type DestStep,
  type ProblemCode,
  type StunRef,
} from "@vmferry/protocol";
import { IncomingQemuError } from "../adapters/incoming-qemu.ts";
import { isOfClaim, stunOf, type Claim, type Shown } from "./claim.ts";
import type { DestHandOverPorts, StateDigests } from "./dest-hand-over-ports.ts";
import { whyNotInDoubt, type Stuck } from "./doubt-text.ts";
import type { GuestHolding } from "./guest-holding.ts";
import { GuestWork } from "./guest-work.ts";
import { afterFailure, journalRecordOf } from "./journal-records.ts";
import { agentStopped } from "./session-errors.ts";
import { WitnessClaim } from "./witness-claim.ts";

/** How long a prepared guest waits for a source whose link was lost. Refusing is always safe. */
const PREPARED_MS_MAX = 60_000;

export class DestHandOver {
  readonly claim: Claim;
  readonly #ports: DestHandOverPorts;
  readonly #keeper: StateKeeper<DestOwnership, DestEvent, DestAction>;
  #channel: MessageLink | null = null;
  #failure: Failure | null = null;
  /** What came before there was anything that could be refused: a stop, a restarted source's ABORT. */
  readonly #early: DestEvent[] = [];
  /** Of what has arrived; null in a restarted dest. */
  #digests: StateDigests | null = null;
  readonly #witness: WitnessClaim;
  readonly #work: GuestWork;
  /** Null before `clear`. */
  #clearing: Promise<void> | null = null;

  constructor(ports: DestHandOverPorts, claim: Claim, initial: DestOwnership = { phase: "none" }) {
    this.#ports = ports;
    this.claim = claim;
    this.#witness = new WitnessClaim(ports, (error) => {
      this.fail(error);
    });
    this.#work = new GuestWork(ports, {
      neverStarted: initial.phase === "none" || initial.phase === "prepared",
      onStuck: () => {
        ports.onState(this.state);
      },
    });
    this.#keeper = new StateKeeper<DestOwnership, DestEvent, DestAction>({
      initial,
      next: (state, event) => {
        // What it led to could say that a QEMU is gone which may be there.
        if (this.isLeft) throw agentStopped();
        return nextDestOwnership(state, this.#asSeen(state, event));
      },
      act: (action) => this.#perform(action),
      onState: (state, event) => {
        this.#work.goesOn();
        ports.logger.info({ ownership: state.phase, event: event?.kind ?? "undone" }, "ownership");
        ports.onState(state);
      },
      afterFailure,
    });
  }

  get state(): DestOwnership {
    return this.#keeper.state;
  }

  get isHalted(): boolean {
    return this.#keeper.isHalted;
  }

  /** Why what is due for the guest is tried again and again; `onState` tells when that changes. */
  get stuckBecause(): Stuck | null {
    return this.#work.stuckBecause;
  }

  /** Why it was refused. */
  get failure(): Failure {
    return this.#failure ?? { code: "cancelled", detail: "refused" };
  }

  /** Nothing can fail any more: the guest is ours, or refused for ever. */
  get settled(): boolean {
    const { phase } = this.state;
    return phase === "owner" || phase === "refused";
  }

  /** Of an offer that cannot be taken any more, or of a hand-over that is settled: only its end is due. */
  get isEnding(): boolean {
    const isRefused = this.state.phase === "none" && this.#failure !== null;
    return this.settled || isRefused || this.#clearing !== null;
  }

  /**
   * The agent stops. Nothing is begun any more, and what is tried again and again is left as the
   * journal has it, for the agent's next life to go on with. Resolves when nothing is under way.
   */
  async stop(): Promise<void> {
    this.#work.stop();
    await this.idle();
  }

  /** Of `stop`. */
  get stopping(): AbortSignal {
    return this.#work.stopping;
  }

  /** What was due was left because of `stop`. */
  get isLeft(): boolean {
    return this.#work.isLeft;
  }

  /** Resolves when that is so. */
  get left(): Promise<void> {
    return this.#work.left;
  }

  /** Takes the source's offer. Rejects with what has gone wrong before. */
  async reserve(): Promise<void> {
    const { code, detail } = this.failure;
    if (this.#early.length > 0) throw new ProblemError(detail, { code });
    await this.#keeper.apply({ kind: "offer", stun: this.claim.stun });
    for (const event of this.#early) this.#enqueue(event);
  }

  /** The offer is not taken: resolves when nothing is left of what was made for it. */
  clear(): Promise<void> {
    // Not in turn, for behind a journal that has failed nobody gets one.
    const cleared = this.#work.discard("clear");
    this.#clearing = cleared.catch(() => undefined);
    return cleared;
  }

  perform(actions: DestStep["actions"]): Promise<void> {
    return this.#keeper.perform(actions);
  }

  until(...phases: readonly DestOwnership["phase"][]): Promise<unknown> {
    return this.#keeper.until(...phases);
  }

  async idle(): Promise<void> {
    await this.#keeper.idle();
    await this.#clearing;
  }

  /** Everything is here: QEMU has loaded it and stands still. */
  async loaded(digests: StateDigests): Promise<void> {
    this.#digests = digests;
    await this.#keeper.apply({ kind: "loaded", digest: stateDigest(digests) });
  }

  /** Follows what becomes of QEMU; as soon as there is one. */
  watch(holding: GuestHolding): void {
    void holding.exited.then(() => {
      if (this.settled) return;
      const died = new IncomingQemuError("the dest's QEMU has died", { code: "dest-qemu-died" });
      this.#failure ??= failureOf(died, "dest");
      this.#enqueue({ kind: "died" });
    });
    holding.onResume(() => {
      const { phase } = this.state;
      // A person has started what did not run: that is what it waited for.
      if (phase === "down") this.#enqueue({ kind: "running" });
      const isOurs = phase === "taken" || phase === "restarting" || phase === "fetching";
      if (isOurs || phase === "owner" || phase === "down") return;
      const detail = "the guest was started by hand before it was handed over";
      this.fail(new IncomingQemuError(detail, { code: "dest-qemu-failed" }));
    });
  }

  /** The source of the claim, by what only it and its dest know. */
  belongsTo(given: Shown): boolean {
    return isOfClaim(this.claim, given);
  }

  /** A connection of the source, or those of a session; what is newer replaces the older. */
  attach(channel: MessageLink): void {
    this.#channel?.close(CloseCode.SESSION_ENDED);
    this.#channel = channel;
    channel.listen((message) => {
      if (channel === this.#channel) this.#received(message);
    });
    void channel.closed.then((reason) => {
      if (channel === this.#channel) this.linkEnded(reason);
    });
  }

  /** Before PREPARED a lost link ends the attempt; a prepared guest waits for its source. */
  linkEnded(reason: Error): void {
    if (this.state.phase === "prepared") this.awaitSource(reason);
    else this.fail(reason);
  }

  /** A prepared guest without a source: it is refused when none comes. */
  awaitSource(reason: Error): void {
    const channel = this.#channel;
    this.#ports.logger.warn({ reason: reason.message }, "prepared without a link; waiting");
    this.#ports.clock.after(PREPARED_MS_MAX, () => {
      if (this.#channel === channel) this.fail(reason);
    });
  }

  /** Refuses, where that is still possible. The first reason is the one that is told. */
  fail(error: unknown): void {
    if (this.settled || this.isHalted) return;
    const failure = failureOf(error, "dest");
    if (this.#failure === null) {
      this.#failure = failure;
      this.#ports.logger.warn({ ...failure }, "failing");
    }
    this.#enqueue({ kind: "failed", code: this.#failure.code });
  }

  /** Throws `not-in-doubt` where there is nothing for a person to decide. */
  async settle(owner: "source" | "dest"): Promise<void> {
    const { state } = this;
    const { phase } = state;
    const may =
      phase === "prepared" ||
      (phase === "down" && owner === "dest") ||
      (phase === "unclear" && state.stun !== null);
    if (!may || this.isHalted) {
      throw new ProblemError(whyNotInDoubt(phase, this.stuckBecause), { code: "not-in-doubt" });
    }
    const lacking = phase === "down" ? (this.#ports.lacks?.() ?? null) : null;
    if (lacking !== null) throw new ProblemError(lacking, { code: "not-in-doubt" });
    const detail = `an operator said that the guest is the ${owner}'s`;
    this.#ports.logger.warn({ owner, phase }, "an operator settles whose the guest is");
    if (owner === "source") this.#failure = { code: "settled-by-operator", detail };
    else if ((phase === "prepared" || phase === "unclear") && state.stun !== null) {
      const why = await this.#witness.ask(state.stun);
      const detail = `The witness does not say that this dest may take the guest: ${why}.`;
      if (why !== null) throw new ProblemError(detail, { code: "not-in-doubt" });
    }
    try {
      await this.#keeper.apply({ kind: "settled", owner });
    } catch (error) {
      if (!(error instanceof OwnershipError)) throw error;
      const why = `It was settled meanwhile: the hand-over is ${this.state.phase}.`;
      throw new ProblemError(why, { code: "not-in-doubt" }, { cause: error });
    }
  }

  /** A link that is gone loses nothing: the source asks again. */
  send(message: ControlMessage): void {
    try {
      this.#channel?.send(message);
    } catch (error) {
      this.#ports.logger.debug({ kind: message.kind, reason: messageOf(error) }, "not sent");
    }
  }

  /** Nobody is waited for any more. */
  close(code: CloseCode): void {
    this.#channel?.close(code);
  }

  #received(message: ControlMessage): void {
    // The source says it again, to the next life.
    if (this.stopping.aborted) return;
    switch (message.kind) {
      case "stunned":
        this.#ports.onStunned();
        this.#enqueue({ kind: "stunned", stun: stunOf(message), digest: stateDigest(message) });
        return;
      case "token":
        void this.#token(stunOf(message));
        return;
      case "abort":
        this.#failure ??= { code: asProblemCode(message.code, "cancelled"), detail: message.text };
        this.#enqueue({ kind: "abort", stun: stunOf(message) });
        return;
      default:
        this.#ports.onOther(message);
    }
  }

  /** Where there is a witness, the guest is the dest's by its word, and not before. */
  async #token(stun: StunRef): Promise<void> {
    const { state } = this;
    if (state.phase === "prepared" && sameStun(stun, state.stun)) {
      const mayTake = await this.#witness.until(stun, {
        // With a failure it is being refused.
        isOpen: () =>
          this.state.phase === "prepared" && this.#failure === null && !this.stopping.aborted,
        onRefused: (reason) => {
          this.#work.stuck({ at: "claim", reason });
        },
      });
      if (!mayTake || this.stopping.aborted) return;
    }
    this.#enqueue({ kind: "token", stun });
  }

  /** A QEMU that was dead before it was told to start has never run the guest. */
  #asSeen(state: DestOwnership, event: DestEvent): DestEvent {
    const neverRan = event.kind === "died" && state.phase === "taken" && this.#work.neverStarted;
    return neverRan ? { kind: "cont-failed" } : event;
  }

  async #perform(action: DestAction): Promise<void> {
    switch (action.do) {
      case "record":
        await this.#record(action);
        return;
      case "send-prepared":
        // Without the digests this is a restarted dest, which the source asks by a token.
        if (this.#digests === null) return;
        this.send({ kind: "prepared", ...this.#about(action.stun), ...this.#digests });
        return;
      case "send-taken":
        this.send({ kind: "taken", ...this.#about(action.stun) });
        return;
      case "send-running":
        this.send({ kind: "running", ...this.#about(action.stun) });
        return;
      case "send-complete":
        this.send({ kind: "complete", ...this.#about(action.stun) });
        return;
      case "send-refused": {
        const { code, detail } = this.#refusal(action.code);
        this.send({ kind: "refused", ...this.#about(action.stun), code, text: detail });
        return;
      }
      case "start-guest":
        await this.#start(action.stun);
        return;
      case "fetch":
        this.#fetch();
        return;
      case "kill-guest":
        await this.#work.discard(this.state.phase === "none" ? "clear" : "end");
        return;
      default:
        unreachable(action);
    }
  }

  async #record(action: DestAction & { do: "record" }): Promise<void> {
    const { journal, logger, clock, holding, isWitnessed } = this.#ports;
    const { record, stun } = action;
    const sinceMs = clock.nowMs();
    await journal.append(
      journalRecordOf(action, { peerIncarnation: this.claim.incarnation, witness: isWitnessed() }),
    );
    logger.info({ record, epoch: stun.epoch, tookMs: clock.nowMs() - sinceMs }, "ownership record");
    if (record !== "complete") return;
    // An image that keeps its mark is the guest's all the same; only a later start of it is refused.
    await holding()
      ?.keep(stun.epoch)
      .catch((error: unknown) => {
        logger.error({ err: error }, "the guest's own record or marks could not be renewed");
      });
  }

  async #start({ epoch }: StunRef): Promise<void> {
    const held = this.#ports.holding();
    const isRestarted = (): boolean => this.state.phase === "restarting";
    if (held?.isAlive() !== true) {
      if (isRestarted()) this.#enqueue({ kind: "cont-failed" });
      return;
    }
    const start = await this.#work.start(held, isRestarted);
    if (start.kind === "running") {
      held.owned(epoch);
      this.#enqueue({ kind: "running" });
    }
    if (start.kind === "failed") {
      this.#failure = { code: "dest-qemu-failed", detail: start.reason };
      this.#enqueue({ kind: "cont-failed" });
    }
  }

  /** What fails there leaves a guest that runs here, and a source that keeps what is missing. */
  #fetch(): void {
    this.#ports.fetch().then(
      () => {
        this.#enqueue({ kind: "whole" });
      },
      (error: unknown) => {
        this.#ports.logger.error({ err: error }, "what is missing of the guest cannot be fetched");
      },
    );
  }

  #enqueue(event: DestEvent): void {
    if (this.isLeft) return;
    if (this.state.phase === "none") {
      // The first is enough to refuse.
      if (this.#early.length === 0) this.#early.push(event);
      return;
    }
    this.#keeper.apply(event).catch((error: unknown) => {
      if (this.isLeft) return;
      this.#ports.logger.error({ err: error, event: event.kind }, "event refused");
      if (event.kind !== "failed" && event.kind !== "died") this.fail(error);
    });
  }

  /** The reason that is told everywhere: ours, or that of the transition itself. */
  #refusal(code: string): Failure {
    const known: ProblemCode = asProblemCode(code, "peer-refused");
    this.#failure ??= { code: known, detail: `the dest refused: ${code}` };
    return this.#failure;
  }

  #about(stun: StunRef): StunRef & { readonly incarnation: string } {
    return { ...stun, incarnation: this.#ports.journal.incarnation };
  }
}

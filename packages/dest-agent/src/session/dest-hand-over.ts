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
  type Journal,
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
import { stuckText, type Stuck } from "./doubt-text.ts";
import { discardSurely, type GuestHolding } from "./guest-holding.ts";
import { afterFailure, journalRecordOf } from "./journal-records.ts";
import { startGuest } from "./start-guest.ts";
import { WitnessClaim, type WitnessClaimPorts } from "./witness-claim.ts";

/** How long a prepared guest waits for a source whose link was lost. Refusing is always safe. */
const PREPARED_MS_MAX = 60_000;

export interface StateDigests {
  readonly ramDigest: string;
  readonly diskDigests: string[];
}

export interface DestHandOverPorts extends WitnessClaimPorts {
  readonly journal: Pick<Journal<"dest">, "append" | "incarnation">;
  /** Null before there is anything of the guest. */
  readonly holding: () => GuestHolding | null;
  /** Resolves when nothing of the guest is missing here any more: at once, where all of it came before. */
  readonly fetch: () => Promise<void>;
  /** What only the source has of a guest that is down, in words; null where it has nothing more. */
  readonly lacks?: () => string | null;
  readonly onState: (state: DestOwnership) => void;
  /** The source has stunned the guest, or asks again. */
  readonly onStunned: () => void;
  /** A message that is not about ownership. */
  readonly onOther: (message: ControlMessage) => void;
}

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
  #stuckBecause: Stuck | null = null;
  readonly #witness: WitnessClaim;
  /** `cont` was not sent yet, in this life or an earlier one. */
  #neverStarted: boolean;

  constructor(ports: DestHandOverPorts, claim: Claim, initial: DestOwnership = { phase: "none" }) {
    this.#ports = ports;
    this.claim = claim;
    this.#witness = new WitnessClaim(ports, (error) => {
      this.fail(error);
    });
    this.#neverStarted = initial.phase === "none" || initial.phase === "prepared";
    this.#keeper = new StateKeeper<DestOwnership, DestEvent, DestAction>({
      initial,
      next: (state, event) => nextDestOwnership(state, this.#asSeen(state, event)),
      act: (action) => this.#perform(action),
      onState: (state, event) => {
        this.#stuckBecause = null;
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
    return this.#stuckBecause;
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

  /** Takes the source's offer. Rejects with what has gone wrong before. */
  async reserve(): Promise<void> {
    const { code, detail } = this.failure;
    if (this.#early.length > 0) throw new ProblemError(detail, { code });
    await this.#keeper.apply({ kind: "offer", stun: this.claim.stun });
    for (const event of this.#early) this.#enqueue(event);
  }

  perform(actions: DestStep["actions"]): Promise<void> {
    return this.#keeper.perform(actions);
  }

  until(...phases: readonly DestOwnership["phase"][]): Promise<unknown> {
    return this.#keeper.until(...phases);
  }

  idle(): Promise<void> {
    return this.#keeper.idle();
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
      throw new ProblemError(this.#whyNot(phase), { code: "not-in-doubt" });
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

  #whyNot(phase: DestOwnership["phase"]): string {
    if (phase === "down") {
      return "The guest was taken, and may have run here: it is not the source's any more.";
    }
    return this.#stuckBecause === null
      ? `Nothing is in doubt here: the hand-over is ${phase}.`
      : stuckText(this.#stuckBecause);
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
        isOpen: () => this.state.phase === "prepared" && this.#failure === null,
        onRefused: (reason) => {
          this.#setStuck({ at: "claim", reason });
        },
      });
      if (!mayTake) return;
    }
    this.#enqueue({ kind: "token", stun });
  }

  #setStuck(stuck: Stuck): void {
    const { at, reason } = this.#stuckBecause ?? {};
    if (at === stuck.at && reason === stuck.reason) return;
    this.#stuckBecause = stuck;
    this.#ports.onState(this.state);
  }

  /** A QEMU that was dead before it was told to start has never run the guest. */
  #asSeen(state: DestOwnership, event: DestEvent): DestEvent {
    const neverRan = event.kind === "died" && state.phase === "taken" && this.#neverStarted;
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
        await discardSurely(this.#ports.holding(), {
          ...this.#ports,
          onStuck: (reason) => {
            this.#setStuck({ at: "end", reason });
          },
        });
        this.#stuckBecause = null;
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

  async #start(stun: StunRef): Promise<void> {
    const { holding, clock, logger } = this.#ports;
    const held = holding();
    if (held?.isAlive() !== true) {
      if (this.state.phase === "restarting") this.#enqueue({ kind: "cont-failed" });
      return;
    }
    const neverStarted = this.#neverStarted;
    const start = await startGuest(held, {
      clock,
      logger,
      isFinal: (attempt) => (neverStarted && attempt === 1) || this.state.phase === "restarting",
      onStuck: (reason) => {
        held.inDoubt();
        this.#setStuck({ at: "start", reason });
      },
    });
    this.#stuckBecause = null;
    this.#neverStarted = neverStarted && start.kind === "gone" && !start.wasTold;
    if (start.kind === "running") {
      held.owned(stun.epoch);
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
    if (this.state.phase === "none") {
      this.#early.push(event);
      return;
    }
    this.#keeper.apply(event).catch((error: unknown) => {
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

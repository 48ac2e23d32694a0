/**
 * One attempt to move one guest away. `run` is the order of a migration; who owns the guest is
 * changed by the pure transitions of `@vmferry/protocol` alone, which `#ownership` keeps.
 *
 * Exit contract of `run`: it never throws. Afterwards the guest runs here (failed, cancelled), runs
 * at the dest (completed), or was reported dead. Between the hand-over and the dest's answer there
 * is no way out but that answer.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { Logger } from "pino";
import { assert, Deferred, messageOf, unreachable, type Clock } from "@vmferry/core";
import {
  asProblemCode,
  ProblemError,
  StateKeeper,
  type Guest,
  type MigrationStore,
} from "@vmferry/agent";
import {
  CloseCode,
  mayRollBack,
  nextSourceOwnership,
  type ControlMessage,
  type ControlMessageOf,
  type GuestDefinition,
  type MigrationLimits,
  type MigrationLimitsPatch,
  type SourceAction,
  type SourceEvent,
  type SourceOwnership,
  type StunAnswer,
  type StunRef,
} from "@vmferry/protocol";
import type { PeerDialer } from "../adapters/peer-dialer.ts";
import { SourceQemu } from "../adapters/source-qemu.ts";
import { RamTransfer } from "../ram/ram-transfer.ts";
import { failureOf, type Failure } from "./failure.ts";
import type { MigrationPlan } from "./migration-plan.ts";
import { greetPeer, openPeerSession, type Identity, type PeerSession } from "./peer-session.ts";
import { Precopy } from "./precopy.ts";
import { ProgressReport } from "./progress-report.ts";
import { SessionError } from "./session-error.ts";

/** From the stun to PREPARED; a dest that takes longer is given up and the guest runs on. */
const STUN_MS_MAX = 60_000;
const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 5000;

export interface SourceSessionPorts {
  readonly guest: Guest;
  readonly dialer: PeerDialer;
  readonly identity: Identity;
  readonly store: MigrationStore;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Directory of the migration socket. */
  readonly runDir: string;
  readonly bulkConnections: number;
}

export class SourceSession {
  readonly #ports: SourceSessionPorts;
  readonly #plan: MigrationPlan;
  readonly #logger: Logger;
  readonly #qemu: SourceQemu;
  readonly #report: ProgressReport;
  readonly #ownership: StateKeeper<SourceOwnership, SourceEvent, SourceAction>;
  /** Aborted by the first failure before the hand-over. */
  readonly #ending = new AbortController();
  readonly #ended = new Deferred<never>();
  #limits: MigrationLimits;
  #failure: Failure | null = null;
  #peer: PeerSession | null = null;
  #transfer: RamTransfer | null = null;
  #handedOff = false;
  #stopped = false;

  constructor(ports: SourceSessionPorts, plan: MigrationPlan) {
    const { guest, store, clock } = ports;
    this.#ports = ports;
    this.#plan = plan;
    this.#limits = plan.limits;
    this.#logger = ports.logger.child({ migrationId: plan.id, guest: guest.name });
    this.#qemu = new SourceQemu(guest.qmp, clock);
    this.#report = new ProgressReport(store, plan.id, clock);
    this.#ownership = new StateKeeper<SourceOwnership, SourceEvent, SourceAction>({
      initial: { phase: "owner", epoch: guest.epoch },
      next: nextSourceOwnership,
      act: (action) => this.#act(action),
      onState: (state, event) => {
        this.#logger.info({ ownership: state.phase, event: event.kind }, "ownership");
        this.#ownershipChanged(state);
      },
    });
    void this.#qemu.closed.then(() => {
      this.fail(new SessionError("the source's QEMU has died", { code: "source-qemu-died" }));
    });
  }

  async run(): Promise<void> {
    try {
      await this.#prepare();
      await this.#precopy();
      await this.#stun();
      await this.#handOver();
      this.#complete();
    } catch (error) {
      this.fail(error);
      await this.#rollBack();
    } finally {
      await this.#close();
    }
  }

  /** Throws `past-hand-over` when the guest is no longer ours to keep. */
  cancel(): void {
    this.#assertBeforeHandOver();
    this.fail(new SessionError("cancelled by request", { code: "cancelled" }));
  }

  /** Throws `past-hand-over`. */
  setLimits(patch: MigrationLimitsPatch): void {
    this.#assertBeforeHandOver();
    const { bandwidthBytesPerSecond, downtimeMsMax, totalMsMax } = patch;
    this.#limits = {
      bandwidthBytesPerSecond:
        bandwidthBytesPerSecond === undefined
          ? this.#limits.bandwidthBytesPerSecond
          : bandwidthBytesPerSecond,
      downtimeMsMax: downtimeMsMax ?? this.#limits.downtimeMsMax,
      totalMsMax: totalMsMax === undefined ? this.#limits.totalMsMax : totalMsMax,
    };
    this.#transfer?.out.setBandwidthLimit(this.#limits.bandwidthBytesPerSecond);
  }

  /** The agent stops: before the hand-over the guest stays, after it the wait for an answer ends. */
  stop(): void {
    this.#stopped = true;
    this.fail(new SessionError("the source agent was stopped", { code: "agent-stopped" }));
    this.#peer?.control.close(CloseCode.SESSION_ENDED);
  }

  /** Ends the attempt while that is possible. The first reason is the one that is told. */
  fail(error: unknown): void {
    if (this.#failure !== null || this.#handedOff) return;
    this.#failure = failureOf(error);
    this.#logger.warn({ code: this.#failure.code, reason: this.#failure.detail }, "ending");
    this.#ending.abort(error);
    this.#ended.reject(error);
  }

  /** Nothing of the guest is touched before the dest has accepted. */
  async #prepare(): Promise<void> {
    const { guest, dialer, identity, bulkConnections, clock, runDir } = this.#ports;
    await this.#ownership.apply({ kind: "begin", migrationId: this.#plan.id });
    const hashSeed = randomBytes(8).toString("hex");
    const peer = await this.#unlessEnded(
      openPeerSession({
        dialer,
        identity,
        signal: this.#ending.signal,
        offer: {
          kind: "offer",
          migrationId: this.#plan.id,
          epoch: this.#stunRef.epoch,
          guest: offeredDefinition(guest.definition),
          accel: guest.accel,
          uuid: guest.uuid,
          qemuVersion: guest.qemuVersion,
          bulkConnections,
          hashSeed,
        },
      }),
    );
    this.#peer = peer;
    peer.control.listen((message) => {
      this.#received(message);
    });
    for (const link of [peer.control, ...peer.bulk]) {
      void link.closed.then((reason) => {
        this.fail(reason);
      });
    }
    this.#transfer = await RamTransfer.open({
      socketPath: join(runDir, `${this.#plan.id.slice(0, 8)}.mig`),
      connections: peer.bulk,
      creditBytes: peer.accept.creditBytes,
      bandwidthBytesPerSecond: this.#limits.bandwidthBytesPerSecond,
      hashSeed,
      clock,
      onRamSent: (ramDigest) => {
        void this.#ramSent(ramDigest);
      },
      onFailed: (error) => {
        this.fail(error);
      },
    });
    this.#report.follow(this.#transfer);
  }

  async #precopy(): Promise<void> {
    const { clock, store } = this.#ports;
    const { control } = this.#peer!;
    const { sender, out, uri } = this.#transfer!;
    await this.#unlessEnded(
      this.#qemu.prepare({ autoConverge: this.#plan.onStall === "throttle" }),
    );
    store.phase(this.#plan.id, "pre-copy");
    const precopy = new Precopy(
      {
        qemu: this.#qemu,
        sender,
        out,
        clock,
        roundTripMs: () => control.roundTripMs,
        limits: () => this.#limits,
        onProgress: (progress) => {
          out.setRoundTrip(control.roundTripMs);
          this.#report.precopy(progress);
        },
        onWarning: (code, detail) => {
          this.#logger.warn({ code, detail }, "warning");
          store.warn(this.#plan.id, { code, detail });
        },
      },
      this.#plan,
    );
    await this.#unlessEnded(precopy.run(uri, this.#ending.signal));
    this.#report.stunned(precopy.stunnedAtMs);
  }

  /** The vCPUs stand still: last pages, device state, and the dest's word that it has them. */
  async #stun(): Promise<void> {
    const { store, clock } = this.#ports;
    await this.#ownership.apply({ kind: "stunned" });
    await this.#unlessEnded(this.#qemu.continueAtSwitchover());
    store.phase(this.#plan.id, "stunned");
    const cancelTimer = clock.after(STUN_MS_MAX, () => {
      const detail = `the dest was not prepared within ${STUN_MS_MAX} ms of the stun`;
      this.fail(new SessionError(detail, { code: "stun-time-limit" }));
    });
    try {
      await this.#unlessEnded(this.#ownership.until("shutting"));
      await this.#unlessEnded(this.#qemu.postmigrate());
    } finally {
      cancelTimer();
    }
  }

  /** The point of no return. From here on the dest's answer is the only way out. */
  async #handOver(): Promise<void> {
    const { store, guest } = this.#ports;
    this.#ending.signal.throwIfAborted();
    this.#handedOff = true;
    guest.handedOff();
    store.phase(this.#plan.id, "handing-over", { mayCancel: false });
    await this.#ownership.apply({ kind: "postmigrate" });
    const answered = this.#ownership.until("done", "owner");
    let delayMs = RECONNECT_MS_MIN;
    while (!this.#stopped) {
      const outcome = await Promise.race([answered, this.#peer!.control.closed]);
      if (!(outcome instanceof Error)) return;
      this.#linkLost(outcome);
      await this.#wait(delayMs);
      delayMs = Math.min(delayMs * 2, RECONNECT_MS_MAX);
      await this.#askAgain();
    }
  }

  #complete(): void {
    const { store } = this.#ports;
    const { phase } = this.#ownership.state;
    if (phase === "done") {
      const result = this.#report.result();
      store.finish(this.#plan.id, { phase: "completed", result });
      this.#logger.info({ result }, "completed");
    } else if (phase === "owner") {
      const failure = this.#failure ?? { code: "peer-refused", detail: "the dest gave it back" };
      store.finish(this.#plan.id, { phase: "failed", error: failure });
    }
    // Otherwise the agent stops while the answer is due: the migration stays what it is.
  }

  /** While the answer is due, nobody knows who owns the guest; once it came, only COMPLETE lacks. */
  #linkLost(reason: Error): void {
    const { store, guest } = this.#ports;
    this.#logger.warn({ reason: reason.message }, "link lost after the hand-over; asking again");
    if (this.#ownership.state.phase !== "handed-off") return;
    guest.inDoubt();
    if (store.get(this.#plan.id).phase !== "in-doubt") store.phase(this.#plan.id, "in-doubt");
  }

  async #askAgain(): Promise<void> {
    const { dialer, identity } = this.#ports;
    const { accept } = this.#peer!;
    try {
      const { control } = await greetPeer(dialer, identity, AbortSignal.timeout(RECONNECT_MS_MAX));
      control.send({ kind: "resume", migrationId: this.#plan.id, session: accept.session });
      this.#peer = { ...this.#peer!, control };
      control.listen((message) => {
        this.#received(message);
      });
      await this.#ownership.apply({ kind: "failed" });
    } catch (error) {
      this.#logger.info({ reason: messageOf(error) }, "the dest cannot be asked yet");
    }
  }

  async #rollBack(): Promise<void> {
    const failure = this.#failure!;
    const phase = failure.code === "cancelled" ? "cancelled" : "failed";
    if (mayRollBack(this.#ownership.state)) await this.#ownership.apply({ kind: "failed" });
    await this.#ownership.until("owner");
    this.#ports.store.finish(this.#plan.id, { phase, error: failure });
    this.#logger.warn({ ...failure }, "ended without a hand-over");
  }

  async #close(): Promise<void> {
    await this.#transfer?.close();
    for (const link of this.#peer?.bulk ?? []) link.close();
    this.#peer?.control.close(CloseCode.DONE);
  }

  async #act(action: SourceAction): Promise<void> {
    const { guest } = this.#ports;
    switch (action.do) {
      case "record":
        this.#logger.info({ record: action.record, epoch: action.epoch }, "ownership record");
        return;
      case "send-token":
        this.#send({ kind: "token", ...this.#about(action.stun) });
        return;
      case "send-abort": {
        const { code, detail } = this.#failure ?? { code: "internal", detail: "" };
        this.#send({ kind: "abort", ...this.#about(action.stun), code, text: detail });
        return;
      }
      case "forward-shut":
        this.#transfer?.forwardShut();
        return;
      case "roll-back":
        await this.#transfer?.close();
        await this.#resumed(this.#qemu.resume());
        return;
      case "resume-guest":
        await this.#resumed(guest.qmp.execute("cont"));
        return;
      case "quit-guest":
        await guest.quit();
        return;
      default:
        unreachable(action);
    }
  }

  #ownershipChanged(state: SourceOwnership): void {
    const { store, guest } = this.#ports;
    if (state.phase === "rolling-back" && this.#failure === null) {
      const detail = "source and dest do not mean the same memory";
      this.fail(new SessionError(detail, { code: "digest-mismatch" }));
    }
    if (state.phase === "owner") guest.owned(state.epoch);
    if (state.phase !== "released") return;
    guest.handedOff();
    store.phase(this.#plan.id, "completing");
  }

  /** The guest is back, or its QEMU is gone and with it the guest: both end the roll-back. */
  async #resumed(attempt: Promise<unknown>): Promise<void> {
    try {
      await attempt;
    } catch (error) {
      this.#logger.error({ err: error }, "the guest could not be seen running again");
    }
    void this.#ownership.apply({ kind: "resumed" });
  }

  async #ramSent(ramDigest: string): Promise<void> {
    this.#report.ramSent(ramDigest);
    await this.#ownership.apply({ kind: "sent", ramDigest });
    if (this.#failure !== null) return;
    this.#send({ kind: "stunned", ...this.#about(this.#stunRef), ramDigest });
    this.#ports.store.phase(this.#plan.id, "device-state");
  }

  #received(message: ControlMessage): void {
    switch (message.kind) {
      case "credit":
        this.#transfer?.out.acknowledged(message.bytes);
        return;
      case "return-path":
        this.#transfer?.returnPath(message.bytes);
        return;
      case "running":
        this.#report.running();
        return;
      case "refused": {
        const code = asProblemCode(message.code, "peer-refused");
        if (this.#handedOff) this.#failure = { code, detail: message.text };
        else this.fail(new SessionError(message.text, { code }));
        if (this.#handedOff) this.#answered({ kind: "refused", ...answerOf(message) });
        return;
      }
      case "prepared":
        this.#answered({
          kind: "prepared",
          ...answerOf(message),
          ramDigest: message.ramDigest,
        });
        return;
      case "taken":
      case "complete":
        this.#answered({ kind: message.kind, ...answerOf(message) });
        return;
      default:
        this.fail(
          new SessionError(`the dest sent ${message.kind}`, { code: "protocol-violation" }),
        );
    }
  }

  #answered(event: SourceEvent): void {
    this.#ownership.apply(event).catch((error: unknown) => {
      this.#logger.error({ err: error }, "an answer of the dest could not be followed");
      this.fail(error);
    });
  }

  /** A link that is gone loses nothing: whoever cares waits for its end, not for this message. */
  #send(message: ControlMessage): void {
    try {
      this.#peer?.control.send(message);
    } catch (error) {
      this.#logger.debug({ kind: message.kind, reason: messageOf(error) }, "not sent");
    }
  }

  #about(stun: StunRef): StunRef & { readonly incarnation: string } {
    return { ...stun, incarnation: this.#ports.identity.incarnation };
  }

  #assertBeforeHandOver(): void {
    if (!this.#handedOff) return;
    throw new ProblemError("The guest has been handed over; only the dest can answer now.", {
      code: "past-hand-over",
    });
  }

  #unlessEnded<T>(step: Promise<T>): Promise<T> {
    return Promise.race([step, this.#ended.promise]);
  }

  #wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#ports.clock.after(ms, resolve);
    });
  }

  get #stunRef(): StunRef {
    const { state } = this.#ownership;
    assert("stun" in state, "a session that has begun has a stun to talk about");
    return state.stun;
  }
}

function answerOf(message: StunRef & { readonly incarnation: string }): StunAnswer {
  const { migrationId, epoch, generation, incarnation } = message;
  return { stun: { migrationId, epoch, generation }, incarnation };
}

/** As the schema of the message has it: a plain copy. */
function offeredDefinition(definition: GuestDefinition): ControlMessageOf<"offer">["guest"] {
  return { ...definition, disks: definition.disks.map((disk) => ({ ...disk })) };
}

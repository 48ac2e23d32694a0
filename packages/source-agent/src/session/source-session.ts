/**
 * One attempt to move one guest away. `run` is the order of a migration; who owns the guest is
 * changed by the pure transitions of `@vmferry/protocol` alone, which `#ownership` keeps.
 *
 * Exit contract of `run`: it never throws. Afterwards the guest runs here (failed, cancelled), runs
 * at the dest (completed), or was reported dead. Between the hand-over and the dest's answer there
 * is no way out but that answer.
 */
import { assert, Deferred } from "@vmferry/core";
import {
  asProblemCode,
  failureOf,
  ProblemError,
  StateKeeper,
  type Failure,
  type Logger,
} from "@vmferry/agent";
import {
  mayRollBack,
  nextSourceOwnership,
  stateDigest,
  type ControlMessage,
  type ControlMessageOf,
  type MigrationLimits,
  type MigrationLimitsPatch,
  type ProblemCode,
  type SourceAction,
  type SourceEvent,
  type SourceOwnership,
  type StunRef,
} from "@vmferry/protocol";
import { SourceQemu } from "../adapters/source-qemu.ts";
import { SourceDisks } from "../disk/source-disks.ts";
import { awaitAnswer } from "./await-answer.ts";
import { DataPath, type StateDigests } from "./data-path.ts";
import { changedLimits, type MigrationPlan } from "./migration-plan.ts";
import { offerOf } from "./offer-of.ts";
import { DiskParting } from "./disk-parting.ts";
import { PeerLink } from "./peer-link.ts";
import { eventOf } from "./source-event.ts";
import { SourceActions } from "./source-actions.ts";
import { ProgressReport } from "./progress-report.ts";
import { SessionError } from "./session-error.ts";
import type { SourceSessionPorts } from "./source-session-ports.ts";
import { TotalLimit } from "./total-limit.ts";

/** From the stun to PREPARED; a dest that takes longer is given up and the guest runs on. */
const STUN_MS_MAX = 60_000;

const EXIT_MS_MAX = 1000;

/** Tells the world how a session ended. */
type Publish = () => void;

export class SourceSession {
  readonly #ports: SourceSessionPorts;
  readonly #plan: MigrationPlan;
  readonly #logger: Logger;
  readonly #qemu: SourceQemu;
  readonly #report: ProgressReport;
  readonly #ownership: StateKeeper<SourceOwnership, SourceEvent, SourceAction>;
  readonly #actions: SourceActions;
  /** Aborted by the first failure before the hand-over. */
  readonly #ending = new AbortController();
  readonly #ended = new Deferred<never>();
  readonly #totalLimit: TotalLimit;
  #limits: MigrationLimits;
  #failure: Failure | null = null;
  #peer: PeerLink | null = null;
  #disks: SourceDisks | null = null;
  #parting: DiskParting | null = null;
  #data: DataPath | null = null;
  #handedOff = false;
  #stopped = false;

  constructor(ports: SourceSessionPorts, plan: MigrationPlan) {
    const { guest, store, clock } = ports;
    this.#ports = ports;
    this.#plan = plan;
    this.#limits = plan.limits;
    this.#logger = ports.logger.child({ migrationId: plan.id, guest: guest.name });
    this.#qemu = new SourceQemu(guest.qmp, clock);
    const { memoryBytes } = guest.definition;
    this.#report = new ProgressReport({ store, id: plan.id, clock, memoryBytes });
    this.#totalLimit = new TotalLimit(clock, (error) => {
      this.fail(error);
    });
    this.#totalLimit.set(plan.limits.totalMsMax);
    this.#actions = new SourceActions({
      guest,
      registry: ports.registry,
      qemu: this.#qemu,
      incarnation: ports.identity.incarnation,
      logger: this.#logger,
      peer: () => this.#peer,
      data: () => this.#data,
      failure: () => this.#failure,
      onResumed: () => {
        this.#apply({ kind: "resumed" });
      },
    });
    this.#ownership = new StateKeeper<SourceOwnership, SourceEvent, SourceAction>({
      initial: { phase: "owner", epoch: guest.epoch },
      next: nextSourceOwnership,
      act: (action) => this.#actions.perform(action),
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
    const { guest } = this.#ports;
    guest.busyWith = this.#plan.id;
    const publish = await this.#attempt();
    await this.#close();
    // Whoever waits for the end may want to begin anew at once.
    guest.busyWith = null;
    publish();
  }

  /** Throws `past-hand-over` when the guest is no longer ours to keep. */
  cancel(): void {
    this.#assertBeforeHandOver();
    this.fail(new SessionError("cancelled by request", { code: "cancelled" }));
  }

  /** Throws `past-hand-over`. */
  setLimits(patch: MigrationLimitsPatch): void {
    this.#assertBeforeHandOver();
    this.#limits = changedLimits(this.#limits, patch);
    this.#totalLimit.set(this.#limits.totalMsMax);
    this.#data?.transport.out.setBandwidthLimit(this.#limits.bandwidthBytesPerSecond);
  }

  /** The agent stops: before the hand-over the guest stays, after it the wait for an answer ends. */
  stop(): void {
    this.#stopped = true;
    this.fail(new SessionError("the source agent was stopped", { code: "agent-stopped" }));
    if (this.#handedOff) this.#peer?.close();
  }

  /** Ends the attempt while that is possible. The first reason is the one that is told. */
  fail(error: unknown): void {
    if (this.#failure !== null || this.#handedOff) return;
    this.#failure = failureOf(error, "source");
    this.#logger.warn({ code: this.#failure.code, reason: this.#failure.detail }, "ending");
    this.#ending.abort(error);
    this.#ended.reject(error);
  }

  /** Resolves with what tells the world how it ended. */
  async #attempt(): Promise<Publish> {
    try {
      await this.#prepare();
      await this.#copyDisks();
      await this.#precopy();
      await this.#stun();
      await this.#handOver();
      return await this.#complete();
    } catch (error) {
      if (this.#handedOff) return this.#alarm(error);
      this.fail(error);
      return this.#rollBack();
    }
  }

  /** Nothing of the guest is touched before the dest has accepted. */
  async #prepare(): Promise<void> {
    const { dialer, identity, clock, runDir, imageDir, guest } = this.#ports;
    const logger = this.#logger;
    const qemu = this.#qemu;
    const migrationId = this.#plan.id;
    await this.#ownership.apply({ kind: "begin", migrationId });
    const where = { imageDir, spoolDir: runDir, migrationId };
    const disks = await SourceDisks.open(guest.definition.disks, where);
    this.#disks = disks;
    this.#parting = new DiskParting({ disks, migrationId, guest, qemu, clock, logger });
    const offer = offerOf(this.#ports, this.#stunRef, disks.offered);
    const signal = this.#ending.signal;
    const peer = await this.#unlessEnded(
      PeerLink.open({ dialer, identity, offer, logger, clock, signal }),
    );
    this.#peer = peer;
    peer.listen((message) => {
      this.#received(message);
    });
    peer.onLost((reason) => {
      this.fail(reason);
    });
    this.#data = await DataPath.open({
      plan: this.#plan,
      offer,
      peer,
      disks,
      qmp: guest.qmp,
      runDir,
      limits: () => this.#limits,
      report: this.#report,
      clock,
      logger,
      onWarning: (code, detail) => {
        this.#warn(code, detail);
      },
      onFailed: (error) => {
        this.fail(error);
      },
    });
  }

  async #copyDisks(): Promise<void> {
    if (!this.#disks!.anyToCopy) return;
    this.#ports.store.phase(this.#plan.id, "disk-copy");
    await this.#unlessEnded(this.#data!.copyDisks());
  }

  async #precopy(): Promise<void> {
    const autoConverge = this.#plan.onStall === "throttle";
    await this.#unlessEnded(this.#qemu.prepare({ autoConverge }));
    this.#ports.store.phase(this.#plan.id, "pre-copy");
    const precopy = this.#data!.precopy(this.#qemu, this.#ending.signal);
    this.#report.stunned(await this.#unlessEnded(precopy));
    this.#totalLimit.end();
  }

  /** The vCPUs stand still: last pages and blocks, device state, and the dest's word that it has them. */
  async #stun(): Promise<void> {
    const { store, clock } = this.#ports;
    await this.#ownership.apply({ kind: "stunned" });
    await this.#unlessEnded(this.#data!.hold());
    const finished = this.#data!.finish();
    finished.catch((error: unknown) => {
      this.fail(error);
    });
    await this.#unlessEnded(this.#qemu.continueAtSwitchover());
    store.phase(this.#plan.id, "stunned");
    const cancelTimer = clock.after(STUN_MS_MAX, () => {
      const detail = `the dest was not prepared within ${STUN_MS_MAX} ms of the stun`;
      this.fail(new SessionError(detail, { code: "stun-time-limit" }));
    });
    try {
      await this.#announceStun(await this.#unlessEnded(finished));
      await this.#unlessEnded(this.#ownership.until("shutting"));
      await this.#unlessEnded(this.#qemu.postmigrate());
    } finally {
      cancelTimer();
    }
  }

  /** The dest shall compare what it has with these. */
  async #announceStun(digests: StateDigests): Promise<void> {
    await this.#ownership.apply({ kind: "sent", digest: stateDigest(digests) });
    this.#peer!.send({ kind: "stunned", ...this.#actions.about(this.#stunRef), ...digests });
    this.#ports.store.phase(this.#plan.id, "device-state");
  }

  /** The point of no return. From here on the dest's answer is the only way out. */
  async #handOver(): Promise<void> {
    const { store, guest } = this.#ports;
    this.#ending.signal.throwIfAborted();
    this.#handedOff = true;
    guest.handedOff();
    this.#parting!.handOver(guest.epoch);
    store.phase(this.#plan.id, "handing-over", { mayCancel: false });
    await this.#ownership.apply({ kind: "postmigrate" });
    await awaitAnswer({
      ownership: this.#ownership,
      peer: this.#peer!,
      clock: this.#ports.clock,
      stopped: () => this.#stopped,
      onLost: (reason) => {
        this.#linkLost(reason);
      },
    });
  }

  async #complete(): Promise<Publish> {
    const { store } = this.#ports;
    const { phase } = this.#ownership.state;
    const result = this.#report.result();
    const { id } = this.#plan;
    // The source's QEMU quits, or the guest that the dest gave back is started.
    await this.#ownership.idle();
    if (phase === "done") {
      this.#logger.info({ result }, "completed");
      return () => {
        store.finish(id, { phase: "completed", result }, this.#report.last());
      };
    }
    if (phase !== "owner") {
      // The agent stops while the answer is due: the migration stays what it is.
      return () => undefined;
    }
    const error = this.#failure ?? { code: "peer-refused", detail: "the dest gave it back" };
    return () => {
      store.finish(id, { phase: "failed", error });
    };
  }

  /** While the answer is due, nobody knows who owns the guest; once it came, only COMPLETE lacks. */
  #linkLost(reason: Error): void {
    const { store, guest } = this.#ports;
    this.#logger.warn({ reason: reason.message }, "link lost after the hand-over; asking again");
    if (this.#ownership.state.phase !== "handed-off") return;
    guest.inDoubt();
    if (store.get(this.#plan.id).phase !== "in-doubt") store.phase(this.#plan.id, "in-doubt");
  }

  async #rollBack(): Promise<Publish> {
    const { store, guest } = this.#ports;
    const error = this.#failure!;
    const phase = error.code === "cancelled" ? "cancelled" : "failed";
    if (mayRollBack(this.#ownership.state)) await this.#ownership.apply({ kind: "failed" });
    await this.#ownership.until("owner");
    if (error.code === "source-qemu-died") {
      // Its monitor closes before the process is gone.
      await Promise.race([guest.process.exited, this.#wait(EXIT_MS_MAX)]);
    }
    this.#logger.warn({ ...error }, "ended without a hand-over");
    return () => {
      store.finish(this.#plan.id, { phase, error });
    };
  }

  /** Past the point of no return nothing is undone: the state stays, and a person has to look. */
  #alarm(error: unknown): Publish {
    const { store, guest } = this.#ports;
    this.#logger.error({ err: error }, "the hand-over cannot go on; the guest stays as it is");
    guest.inDoubt();
    return () => {
      if (store.get(this.#plan.id).phase !== "in-doubt") store.phase(this.#plan.id, "in-doubt");
    };
  }

  async #close(): Promise<void> {
    this.#totalLimit.end();
    await this.#data?.close();
    await this.#parting?.part(this.#ownership.state);
    this.#peer?.close();
  }

  #warn(code: ProblemCode, detail: string): void {
    this.#logger.warn({ code, detail }, "warning");
    this.#ports.store.warn(this.#plan.id, { code, detail });
  }

  #ownershipChanged(state: SourceOwnership): void {
    const { store, guest } = this.#ports;
    if (state.phase === "rolling-back" && this.#failure === null) {
      const detail = "source and dest do not mean the same memory and disks";
      this.fail(new SessionError(detail, { code: "digest-mismatch" }));
    }
    if (state.phase === "owner") guest.owned(state.epoch);
    if (state.phase !== "released") return;
    guest.handedOff();
    store.phase(this.#plan.id, "completing");
  }

  #received(message: ControlMessage): void {
    switch (message.kind) {
      case "credit":
        try {
          this.#data?.transport.out.acknowledged(message.bytes);
        } catch (error) {
          this.fail(error);
        }
        return;
      case "return-path":
        this.#data?.ram.returnPath(message.bytes);
        return;
      case "running":
        this.#report.running();
        return;
      case "refused":
        this.#refused(message);
        return;
      case "prepared":
      case "taken":
      case "complete":
        this.#apply(eventOf(message));
        return;
      default:
        this.fail(
          new SessionError(`the dest sent ${message.kind}`, { code: "protocol-violation" }),
        );
    }
  }

  /** Before the hand-over a refusal is a failure like others; after it, it is the answer. */
  #refused(message: ControlMessageOf<"refused">): void {
    const failure = { code: asProblemCode(message.code, "peer-refused"), detail: message.text };
    if (this.#handedOff) {
      this.#failure = failure;
      this.#apply(eventOf(message));
    } else this.fail(new SessionError(failure.detail, { code: failure.code }));
  }

  #apply(event: SourceEvent): void {
    this.#ownership.apply(event).catch((error: unknown) => {
      this.#logger.error({ err: error }, "an event could not be followed");
      this.fail(error);
    });
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

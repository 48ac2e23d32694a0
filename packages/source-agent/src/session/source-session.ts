/**
 * One attempt to move one guest away. `run` is the order of a migration; who owns the guest is
 * `SourceHandOver`'s alone to change.
 *
 * Exit contract of `run`: it never throws. Afterwards the guest runs here (failed, cancelled), runs
 * at the dest (completed), or was reported dead. Between the hand-over and the dest's answer there
 * is no way out but that answer.
 */
import { sleep } from "@vmferry/core";
import { haltedText, migrationLogger, type Logger } from "@vmferry/agent";
import {
  CloseCode,
  mayRollBack,
  stateDigest,
  UNKNOWN_MAP,
  type MigrationLimitsPatch,
  type MigrationMap,
  type SourceOwnership,
  type StunRef,
} from "@vmferry/protocol";
import { AttemptEnd } from "./attempt-end.ts";
import type { Cargo } from "./cargo.ts";
import type { StateDigests } from "./data-path.ts";
import { doubtText, lackingText, stuckText } from "./doubt-text.ts";
import { doesFollow, followingBytes, serveCargo, showFollowed } from "./follow-rest.ts";
import { notHandedOver, pastHandOver } from "./hand-over-refusals.ts";
import { mayThrottle, type MigrationPlan } from "./migration-plan.ts";
import { offerOf } from "./offer-of.ts";
import { PeerLink } from "./peer-link.ts";
import { assertPostcopy } from "./postcopy-check.ts";
import { proveWitness } from "./witness-proof.ts";
import { deliver, type MessageTargets } from "./peer-messages.ts";
import { SourceHandOver } from "./source-hand-over.ts";
import { ProgressReport } from "./progress-report.ts";
import { MONITOR_GONE, SessionError } from "./session-error.ts";
import type { SourceSessionPorts } from "./source-session-ports.ts";
import { stunOf } from "./stun-of.ts";
import { tellRolledBack } from "./tell-rolled-back.ts";
import { warnOf } from "./warn-of.ts";
import { withinStun } from "./stun-limit.ts";
import { SessionLimits } from "./session-limits.ts";
import { mayBeAskedFor } from "../postcopy/memory-rest.ts";

const EXIT_MS_MAX = 1000;
const SETTLED = "an operator said that the guest is the source's";

/** Tells the world how a session ended. */
type Publish = () => void;

export class SourceSession {
  readonly #ports: SourceSessionPorts;
  readonly #plan: MigrationPlan;
  readonly #logger: Logger;
  readonly #report: ProgressReport;
  /** By the first failure before the hand-over. */
  readonly #end: AttemptEnd;
  readonly #limits: SessionLimits;
  /** Null until the journal is open. */
  #ownership: SourceHandOver | null = null;
  #peer: PeerLink | null = null;
  #cargo: Cargo | null = null;
  #isPostcopyDue = false;
  #closeJournal: () => Promise<void> = () => Promise.resolve();
  #handedOff = false;
  #linkIsLost = false;
  /** Null before the journal says that the attempt has begun. */
  #offered: StunRef | null = null;
  #stopped = false;
  readonly #fail = (error: unknown): void => {
    this.fail(error);
  };

  constructor(ports: SourceSessionPorts, plan: MigrationPlan) {
    const { guest, store, clock } = ports;
    this.#ports = ports;
    this.#plan = plan;
    const { id: migrationId, traceParent } = plan;
    this.#logger = migrationLogger(ports.logger, { migrationId, guest: guest.name, traceParent });
    this.#end = new AttemptEnd(this.#logger);
    const { memoryBytes } = guest.definition;
    this.#report = new ProgressReport({ store, id: plan.id, clock, memoryBytes });
    this.#limits = new SessionLimits(plan.limits, clock, this.#fail);
    void ports.qemu.closed.then(() => {
      this.fail(new SessionError(MONITOR_GONE, { code: "source-qemu-died" }));
    });
  }

  async run(): Promise<void> {
    const { guest } = this.#ports;
    guest.busyWith = this.#plan.id;
    const publish = await this.#attempt();
    await this.#close();
    guest.busyWith = null; // Whoever waits for the end may want to begin anew at once.
    publish();
    if (this.#linkIsLost && this.#ownership?.state.phase === "owner") await this.#tellDest();
  }

  /** ABORT went out when there was no link any more. */
  async #tellDest(): Promise<void> {
    const { clock } = this.#ports;
    const [{ code, detail: text }, { control: link }] = [this.#end.failure!, this.#peer!];
    const abort = { kind: "abort", ...this.#ownership!.about(this.#offered!), code, text } as const;
    await tellRolledBack({ link, abort, clock, stopped: () => this.#stopped });
    link.close(CloseCode.DONE);
  }

  map(cells: number): MigrationMap {
    return this.#cargo?.map(cells) ?? UNKNOWN_MAP;
  }

  /** Throws `past-hand-over` when the guest is no longer ours to keep. */
  cancel(): void {
    this.#assertBeforeHandOver();
    this.fail(new SessionError("cancelled by request", { code: "cancelled" }));
  }

  /** Throws `past-hand-over`. */
  setLimits(patch: MigrationLimitsPatch): void {
    // What follows the guest may be slowed down; nothing else can change any more.
    const isBandwidth = Object.keys(patch).every((name) => name === "bandwidthBytesPerSecond");
    const follows = this.#cargo?.rest ?? this.#cargo?.diskRest ?? null;
    if (!isBandwidth || follows === null) this.#assertBeforeHandOver();
    this.#limits.change(patch);
    this.#cargo?.setBandwidthLimit(this.#limits.now.bandwidthBytesPerSecond);
  }

  /** Throws `past-hand-over` or `post-copy-unavailable`. */
  postcopy(): void {
    this.#assertBeforeHandOver();
    assertPostcopy(this.#cargo?.postcopyRefusal ?? null);
    this.#isPostcopyDue = true;
    this.#cargo?.postcopy();
  }

  /** Throws `not-in-doubt`. */
  async settle(owner: "source" | "dest"): Promise<void> {
    if (!this.#handedOff) throw notHandedOver();
    if (owner === "source") this.#end.gaveBack({ code: "settled-by-operator", detail: SETTLED });
    await this.#ownership!.settle(owner);
  }

  /** The agent stops: before the hand-over the guest stays, after it the wait for an answer ends. */
  stop(): void {
    this.#stopped = true;
    this.#ownership?.stop();
    this.fail(new SessionError("the source agent was stopped", { code: "agent-stopped" }));
    if (this.#handedOff) this.#peer?.close();
  }

  /** Ends the attempt while that is possible. The first reason is the one that is told. */
  fail(error: unknown): void {
    if (!this.#handedOff) this.#end.fail(error);
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
    const { traceParent } = this.#plan;
    const logger = this.#logger;
    const ownership = await this.#openJournal();
    await ownership.apply({ kind: "begin", migrationId: this.#plan.id });
    const cargo = await this.#openCargo();
    const stun = stunOf(ownership.state);
    this.#offered = stun;
    const witness = await proveWitness(this.#ports.witness, stun.migrationId, logger);
    const { incarnation } = ownership.about(stun);
    const parts = { stun, disks: cargo.offered, incarnation, witness };
    const offer = offerOf(this.#ports, this.#plan, parts);
    const peer = await this.#end.unless(
      PeerLink.open({ ...this.#ports, offer, traceParent, logger, signal: this.#end.signal }),
    );
    this.#peer = peer;
    const targets: MessageTargets = {
      ...{ cargo, report: this.#report, ownership },
      isAnswer: (failure) => {
        if (this.#handedOff) this.#end.gaveBack(failure);
        return this.#handedOff;
      },
      fail: this.#fail,
    };
    peer.control.listen((message) => {
      deliver(message, targets);
    });
    peer.onLost((reason) => {
      this.#linkIsLost = true;
      this.fail(reason);
    });
    await cargo.load(offer, peer);
    if (this.#plan.mode === "post-copy") assertPostcopy(cargo.postcopyRefusal);
  }

  async #openJournal(): Promise<SourceHandOver> {
    const { guest, qemu, clock } = this.#ports;
    const journal = await this.#ports.openJournal();
    this.#closeJournal = () => journal.close();
    this.#ownership = new SourceHandOver(
      {
        ...{ guest, qemu, journal, clock, logger: this.#logger, peer: this.#plan.destination },
        link: () => this.#peer?.control ?? null,
        failure: () => this.#end.failure,
        giveBack: async () => {
          // QEMU resumes the guest by itself as soon as it sees its socket closed.
          this.#cargo?.release();
          await this.#cargo?.close();
          return "nothing";
        },
        witness: () => (this.#peer?.accept.witness === true ? this.#ports.witness : null),
        onBack: (failure) => {
          this.#end.gaveBack(failure);
        },
        lacks: () => {
          const following = followingBytes(this.#cargo!);
          return Promise.resolve(following === null ? null : lackingText(following, this.#plan));
        },
        forwardShut: () => {
          this.#cargo!.forwardShut();
        },
        onState: (state) => {
          this.#ownershipChanged(state);
        },
        onFailed: this.#fail,
      },
      { phase: "owner", epoch: guest.epoch },
    );
    return this.#ownership;
  }

  async #openCargo(): Promise<Cargo> {
    return (this.#cargo = await this.#ports.openCargo({
      plan: this.#plan,
      limits: () => this.#limits.now,
      report: this.#report,
      clock: this.#ports.clock,
      logger: this.#logger,
      onWarning: warnOf(this.#plan.id, this.#ports.store, this.#logger),
      onFailed: this.#fail,
    }));
  }

  async #copyDisks(): Promise<void> {
    if (!this.#cargo!.anyToCopy) return;
    this.#ports.store.phase(this.#plan.id, "disk-copy");
    await this.#end.unless(this.#cargo!.copyDisks());
  }

  async #precopy(): Promise<void> {
    await this.#end.unless(this.#ports.qemu.prepare({ autoConverge: mayThrottle(this.#plan) }));
    this.#ports.store.phase(this.#plan.id, "pre-copy");
    const precopy = this.#cargo!.precopy(this.#end.signal);
    if (this.#isPostcopyDue) this.#cargo!.postcopy();
    this.#report.stunned(await this.#end.unless(precopy));
    this.#limits.end();
  }

  /** The vCPUs stand still: last pages and blocks, device state, and the dest's word that it has them. */
  async #stun(): Promise<void> {
    const { store, clock } = this.#ports;
    this.#peer!.guestStandsStill();
    await this.#ownership!.apply({ kind: "stunned" });
    await this.#end.unless(this.#cargo!.hold());
    const finished = this.#cargo!.finish();
    finished.catch(this.#fail);
    await this.#end.unless(this.#ports.qemu.continueAtSwitchover());
    store.phase(this.#plan.id, "stunned");
    const prepared = async (): Promise<void> => {
      await this.#announceStun(await this.#end.unless(finished));
      await this.#end.unless(this.#ownership!.until("shutting"));
      await this.#end.unless(this.#ports.qemu.postmigrate());
      await this.#end.unless(this.#cargo!.restKept());
      await this.#end.unless(this.#cargo!.fenceDisks());
    };
    await withinStun(prepared, { clock, fail: this.#fail });
  }

  /** The dest shall compare what it has with these. */
  async #announceStun(digests: StateDigests): Promise<void> {
    await this.#ownership!.apply({ kind: "sent", digest: stateDigest(digests) });
    this.#peer!.send({ kind: "stunned", ...this.#ownership!.about(this.#offered!), ...digests });
    this.#ports.store.phase(this.#plan.id, "device-state");
  }

  /** The point of no return. From here on the dest's answer is the only way out. */
  async #handOver(): Promise<void> {
    const { store, guest } = this.#ports;
    const ownership = this.#ownership!;
    await this.#end.unless(this.#peer!.handOver());
    this.#end.signal.throwIfAborted();
    this.#handedOff = true;
    guest.handedOff();
    this.#cargo!.handOver(guest.epoch);
    store.phase(this.#plan.id, "handing-over", { mayCancel: false });
    try {
      await ownership.apply({ kind: "postmigrate" });
    } catch (error) {
      // Where it is evident that nothing was recorded, nothing has been handed over.
      this.#handedOff = !mayRollBack(ownership.state);
      throw error;
    }
    await ownership.awaitAnswer({
      stopped: () => this.#stopped,
      onLost: this.#linkLost.bind(this),
      onOverdue: (known) => {
        this.#inDoubt(doubtText(ownership.state, this.#plan, known));
      },
    });
  }

  async #complete(): Promise<Publish> {
    const [{ store }, { id }, ownership] = [this.#ports, this.#plan, this.#ownership!];
    if (ownership.state.phase === "done") showFollowed(this.#cargo!, this.#report);
    const result = this.#report.result();
    // The source's QEMU quits, or the guest that the dest gave back is started.
    if (ownership.state.phase === "reclaimed") {
      await Promise.race([ownership.until("owner"), ownership.leftOpen]);
    }
    await ownership.idle();
    const { phase } = ownership.state;
    if (phase === "done") {
      this.#logger.info({ result }, "completed");
      return () => {
        store.finish(id, { phase: "completed", result }, this.#report.last());
      };
    }
    // The agent stops: the migration stays what it is.
    if (phase !== "owner") return () => undefined;
    const error = this.#end.failure ?? { code: "peer-refused", detail: "the dest gave it back" };
    return () => {
      store.finish(id, { phase: "failed", error });
    };
  }

  /** While the answer is due, nobody knows who owns the guest; once it came, only COMPLETE lacks. */
  #linkLost(reason: Error): void {
    this.#logger.warn({ reason: reason.message }, "link lost after the hand-over; asking again");
    const { state } = this.#ownership!;
    if (state.phase === "handed-off") this.#inDoubt(doubtText(state, this.#plan));
  }

  #inDoubt(detail: string): void {
    this.#ports.guest.inDoubt();
    this.#ports.store.inDoubt(this.#plan.id, detail);
  }

  async #rollBack(): Promise<Publish> {
    const { store, guest } = this.#ports;
    const error = this.#end.failure!;
    const phase = error.code === "cancelled" ? "cancelled" : "failed";
    const ownership = this.#ownership;
    // A journal that cannot be opened or begun leaves nothing to undo.
    if (ownership !== null && !ownership.isHalted) {
      if (mayRollBack(ownership.state)) await ownership.apply({ kind: "failed" });
      await Promise.race([ownership.until("owner"), ownership.leftOpen]);
      await ownership.idle();
      // The agent stops: the next one goes on with it.
      if (ownership.state.phase !== "owner") return () => undefined;
    }
    if (error.code === "source-qemu-died") {
      // Its monitor closes before the process is gone.
      await Promise.race([guest.exited, sleep(this.#ports.clock, EXIT_MS_MAX)]);
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
      const detail =
        this.#ownership?.isHalted === true
          ? haltedText(error)
          : doubtText(this.#ownership!.state, this.#plan);
      store.inDoubt(this.#plan.id, detail);
    };
  }

  async #close(): Promise<void> {
    this.#limits.end();
    await this.#cargo?.close();
    await this.#cargo?.part(this.#ownership!.state);
    this.#linkIsLost ||= this.#peer?.whole === false;
    this.#peer?.close();
    const { phase } = this.#ownership?.state ?? { phase: "owner" };
    if (phase === "owner" || phase === "done") {
      await this.#ports.witness?.forget(this.#plan.id).catch(() => undefined);
    }
    await this.#closeJournal();
  }

  #ownershipChanged(state: SourceOwnership): void {
    const { store, guest } = this.#ports;
    if (state.phase === "rolling-back" && this.#end.failure === null) {
      const detail = "source and dest do not mean the same memory and disks";
      this.fail(new SessionError(detail, { code: "digest-mismatch" }));
    }
    const stuckBecause = this.#ownership?.stuckBecause ?? null;
    if (stuckBecause !== null) this.#inDoubt(stuckText(stuckBecause));
    if (state.phase === "owner") guest.owned(state.epoch);
    if (state.phase === "handed-off") {
      const isOver = (): boolean => this.#stopped || !mayBeAskedFor(this.#ownership!.state);
      serveCargo(this.#cargo!, this.#report, { clock: this.#ports.clock, isOver });
    }
    if (state.phase !== "released") return;
    guest.handedOff();
    store.phase(this.#plan.id, doesFollow(this.#cargo!) ? "post-copy" : "completing");
  }

  #assertBeforeHandOver(): void {
    if (this.#handedOff) throw pastHandOver();
  }
}

/**
 * One guest on its way in. The dest is never in doubt: until it has taken the guest it may refuse
 * at any time, and its QEMU is started by a token alone. Who owns the guest is changed by the pure
 * transitions of `@vmferry/protocol`, which `#ownership` keeps.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { messageOf, unreachable, type Clock } from "@vmferry/core";
import {
  asProblemCode,
  failureOf,
  StateKeeper,
  PeerError,
  type ControlChannel,
  type Failure,
  type Guest,
  type GuestRegistry,
  type MigrationStore,
  type Logger,
} from "@vmferry/agent";
import {
  CloseCode,
  limits,
  nextDestOwnership,
  stateDigest,
  type Agreement,
  type ControlMessage,
  type ControlMessageOf,
  type DestAction,
  type DestEvent,
  type DestOwnership,
  type GuestDefinition,
  type ProblemCode,
  type StunRef,
  violation,
} from "@vmferry/protocol";
import { encodeReturnPath } from "@vmferry/qemu";
import { IncomingQemu, IncomingQemuError } from "../adapters/incoming-qemu.ts";
import { IncomingDisks } from "../disk/incoming-disks.ts";
import { ArrivalReport } from "./arrival-report.ts";
import type { BulkLink } from "./bulk-link.ts";
import { definitionOf } from "./offer-check.ts";
import { openReceivers, type Receivers } from "./receivers.ts";

/** How long a prepared guest waits for a source whose link was lost. Refusing is always safe. */
const PREPARED_MS_MAX = 60_000;

export interface DestSessionPorts {
  readonly registry: GuestRegistry;
  readonly store: MigrationStore;
  readonly incarnation: string;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly runDir: string;
  readonly imageDir: string;
}

/** A source that offers a guest. */
export interface Arrival {
  readonly channel: ControlChannel;
  readonly offer: ControlMessageOf<"offer">;
  readonly agreement: Agreement;
}

export class DestSession {
  /** Bulk connections and a control connection that comes back show it. */
  readonly secret = randomBytes(32).toString("hex");
  readonly #ports: DestSessionPorts;
  readonly #offer: ControlMessageOf<"offer">;
  readonly #agreement: Agreement;
  readonly #logger: Logger;
  readonly #ownership: StateKeeper<DestOwnership, DestEvent, DestAction>;
  readonly #report: ArrivalReport;
  readonly #links = new Map<number, BulkLink>();
  #channel: ControlChannel;
  #guest: Guest | null = null;
  #qemu: IncomingQemu | null = null;
  #receivers: Receivers | null = null;
  #disks: IncomingDisks | null = null;
  #digests: Digests = { ramDigest: "", diskDigests: [] };
  #failure: Failure | null = null;

  constructor(ports: DestSessionPorts, { channel, offer, agreement }: Arrival) {
    this.#ports = ports;
    this.#channel = channel;
    this.#offer = offer;
    this.#agreement = agreement;
    const { migrationId } = offer;
    this.#logger = ports.logger.child({ migrationId, guest: offer.guest.name });
    this.#report = new ArrivalReport(ports.store, migrationId, ports.clock);
    this.#ownership = new StateKeeper<DestOwnership, DestEvent, DestAction>({
      initial: { phase: "none" },
      next: nextDestOwnership,
      act: (action) => this.#act(action),
      onState: (state, event) => {
        this.#logger.info({ ownership: state.phase, event: event.kind }, "ownership");
      },
    });
  }

  get bulkConnections(): number {
    return this.#offer.bulkConnections;
  }

  /** Runs until the guest is ours or refused for ever. Rejects only before anything was promised. */
  async run(): Promise<void> {
    await this.#reserve();
    this.#follow(this.#channel);
    void this.#load();
    const { phase } = await this.#ownership.until("owner", "refused");
    // Only then are its actions done: the QEMU of a refusal is gone, and the reason known.
    await this.#ownership.idle();
    await this.#close();
    if (phase === "owner") this.#report.completed();
    else this.#report.failed(this.#failure ?? { code: "cancelled", detail: "refused" });
  }

  /**
   * A source that offers a guest anew has rolled the last attempt back, although its ABORT did not
   * arrive: an incarnation that had handed the guest over would not offer it. So that attempt is
   * refused at once, and its QEMU makes room.
   */
  async supersede({ offer, agreement }: Arrival): Promise<void> {
    if (offer.uuid !== this.#offer.uuid) return;
    const fromTheSame = agreement.incarnation === this.#agreement.incarnation;
    if (!this.#settled && fromTheSame && offer.epoch >= this.#offer.epoch) {
      this.fail(new PeerError("the source began anew", { code: "peer-lost", closeCode: null }));
    }
    // A refusal that is under way, this one or an earlier one, is still ending its QEMU.
    await this.#ownership.idle();
  }

  /** A connection of this session; throws what breaks the protocol. */
  attach(index: number, link: BulkLink): void {
    this.#links.get(index)?.close(CloseCode.SESSION_ENDED);
    this.#links.set(index, link);
    link.listen(
      (frame) => {
        try {
          this.#receivers?.bulk.arrived(index, frame);
        } catch (error) {
          this.fail(error);
        }
      },
      (reason) => {
        this.#linkEnded(reason);
      },
    );
  }

  /** The source is back after a lost link; the newer connection replaces the older. */
  resume(channel: ControlChannel): void {
    this.#channel.close(CloseCode.SESSION_ENDED);
    this.#channel = channel;
    this.#follow(channel);
  }

  /** Refuses, where that is still possible. The first reason is the one that is told. */
  fail(error: unknown): void {
    if (this.#settled) return;
    const failure = failureOf(error, "dest");
    if (this.#failure === null) {
      this.#failure = failure;
      this.#logger.warn({ ...failure }, "failing");
    }
    this.#enqueue({ kind: "failed", code: this.#failure.code });
  }

  /** The agent stops. Resolves when the refusal is done, where refusing was still possible. */
  async stop(): Promise<void> {
    this.fail(new PeerError("the dest agent was stopped", { code: "agent-stopped" }));
    await this.#ownership.idle();
  }

  /** Everything that can speak against the guest is found before ACCEPT. */
  async #reserve(): Promise<void> {
    const { migrationId, epoch } = this.#offer;
    const definition = definitionOf(this.#offer);
    const compression = this.#agreement.features.has("zstd");
    this.#disks = await IncomingDisks.prepare({
      definitions: definition.disks,
      offer: this.#offer,
      imageDir: this.#ports.imageDir,
      compression,
      clock: this.#ports.clock,
      onInflated: (bytes) => this.#receivers?.bulk.becomesGarbage(bytes),
      onFailed: (error) => {
        this.fail(error);
      },
    });
    const { guest, qemu } = await this.#launch(definition);
    this.#receivers = openReceivers({
      offer: this.#offer,
      sink: qemu.sink,
      disks: this.#disks,
      compression,
      onCredit: (bytes) => {
        this.#send({ kind: "credit", bytes });
      },
    });
    this.#report.begin(this.#offer, { ...this.#receivers, disks: this.#disks.receiver });
    await this.#ownership.apply({ kind: "offer", stun: { migrationId, epoch, generation: 1 } });
    void guest.process.exited.then(() => {
      this.fail(new IncomingQemuError("the dest's QEMU has died", { code: "dest-qemu-died" }));
    });
    this.#send({
      kind: "accept",
      migrationId,
      epoch,
      session: this.secret,
      creditBytes: limits.CREDIT_BYTES_MAX,
      qemuVersion: guest.qemuVersion,
    });
  }

  /** A QEMU that waits for the guest; when there is none, nothing that was made for it stays. */
  async #launch(
    definition: GuestDefinition,
  ): Promise<{ readonly guest: Guest; readonly qemu: IncomingQemu }> {
    const { registry, runDir, clock } = this.#ports;
    const { migrationId, epoch, accel, uuid } = this.#offer;
    try {
      const guest = await registry.launchIncoming({ definition, accel, uuid, epoch });
      this.#guest = guest;
      guest.busyWith = migrationId;
      this.#qemu = await IncomingQemu.open({
        qmp: guest.qmp,
        clock,
        socketPath: join(runDir, `${migrationId.slice(0, 8)}.in`),
        onReturnPath: (message) => {
          this.#send({ kind: "return-path", bytes: encodeReturnPath(message) });
        },
      });
      return { guest, qemu: this.#qemu };
    } catch (error) {
      await this.#kill();
      throw error;
    }
  }

  /** Ready means: QEMU has loaded everything, the disks are whole, and the digests cover it all. */
  async #load(): Promise<void> {
    const [qemu, receiver, disks] = [this.#qemu!, this.#receivers!.ram, this.#disks!];
    try {
      const fed = receiver.run();
      const loaded = qemu.loaded();
      const arrived = disks.receiver?.ended ?? Promise.resolve([]);
      await Promise.race([receiver.ramEnded.promise, fed, loaded]);
      // QEMU loads the device state meanwhile.
      const ramDigest = receiver.digest();
      this.#report.ramEnded();
      const [diskDigests] = await Promise.all([arrived, Promise.race([loaded, fed])]);
      this.#digests = { ramDigest, diskDigests };
      this.#report.digests(this.#digests);
      await disks.unlock();
      await this.#ownership.apply({ kind: "loaded", digest: stateDigest(this.#digests) });
    } catch (error) {
      this.fail(error);
    }
  }

  #follow(channel: ControlChannel): void {
    channel.listen((message) => {
      if (channel === this.#channel) this.#received(message);
    });
    void channel.closed.then((reason) => {
      if (channel === this.#channel) this.#linkEnded(reason);
    });
  }

  #received(message: ControlMessage): void {
    switch (message.kind) {
      case "stunned":
        this.#report.stunned();
        this.#enqueue({ kind: "stunned", stun: stunOf(message), digest: stateDigest(message) });
        return;
      case "token":
        this.#enqueue({ kind: "token", stun: stunOf(message) });
        return;
      case "abort":
        this.#failure ??= { code: asProblemCode(message.code, "cancelled"), detail: message.text };
        this.#enqueue({ kind: "abort", stun: stunOf(message) });
        return;
      default:
        this.fail(violation(`${message.kind} in the middle of a session`));
    }
  }

  /** Before PREPARED a lost link ends the attempt; a prepared guest waits for its source. */
  #linkEnded(reason: Error): void {
    if (this.#ownership.state.phase !== "prepared") {
      this.fail(reason);
      return;
    }
    const channel = this.#channel;
    this.#logger.warn({ reason: reason.message }, "link lost while prepared; waiting");
    this.#ports.clock.after(PREPARED_MS_MAX, () => {
      if (this.#channel === channel) this.fail(reason);
    });
  }

  async #act(action: DestAction): Promise<void> {
    switch (action.do) {
      case "record":
        await this.#record(action);
        return;
      case "send-prepared":
        this.#report.prepared();
        this.#send({ kind: "prepared", ...this.#about(action.stun), ...this.#digests });
        return;
      case "send-taken":
        this.#send({ kind: "taken", ...this.#about(action.stun) });
        return;
      case "send-running":
        this.#send({ kind: "running", ...this.#about(action.stun) });
        return;
      case "send-complete":
        this.#send({ kind: "complete", ...this.#about(action.stun) });
        return;
      case "send-refused": {
        const { code, detail } = this.#refusal(action.code);
        this.#send({ kind: "refused", ...this.#about(action.stun), code, text: detail });
        return;
      }
      case "start-guest":
        await this.#start(action.stun);
        return;
      case "kill-guest":
        await this.#kill();
        return;
      default:
        unreachable(action);
    }
  }

  async #record({ record, stun }: DestAction & { do: "record" }): Promise<void> {
    this.#logger.info({ record, epoch: stun.epoch }, "ownership record");
    const { registry } = this.#ports;
    if (record === "prepared") await registry.mark(this.#guest!, "prepared", stun.epoch);
    if (record !== "complete") return;
    await registry.mark(this.#guest!, "owned", stun.epoch);
    // An image that keeps its mark is the guest's all the same; only a later start of it is refused.
    await this.#disks?.keep().catch((error: unknown) => {
      this.#logger.error({ err: error }, "the mark of an image could not be removed");
    });
  }

  async #start(stun: StunRef): Promise<void> {
    const guest = this.#guest!;
    const outcome = await this.#qemu!.cont();
    if (outcome.kind === "running") {
      guest.owned(stun.epoch);
      this.#enqueue({ kind: "running" });
      return;
    }
    this.#failure = { code: "dest-qemu-failed", detail: outcome.reason };
    this.#logger.error({ ...outcome }, "the guest was not started");
    if (outcome.kind === "stands-still") this.#enqueue({ kind: "cont-failed" });
    else guest.inDoubt();
  }

  /** Before the guest was taken: what was loaded is void. */
  async #kill(): Promise<void> {
    const guest = this.#guest;
    await this.#qemu?.close();
    if (guest?.alive === true) await guest.kill();
    if (guest !== null) await this.#ports.registry.forget(guest);
    await this.#disks?.discard();
  }

  async #close(): Promise<void> {
    this.#receivers?.ram.stop();
    for (const link of this.#links.values()) link.close(CloseCode.DONE);
    await this.#qemu?.close();
    if (this.#guest !== null) this.#guest.busyWith = null;
    // The session stays, to answer a source that asks again; what grows with the guest goes.
    this.#links.clear();
    this.#receivers = null;
    this.#disks = null;
    this.#qemu = null;
  }

  /** Nothing can fail any more: the guest is ours, or refused for ever. */
  get #settled(): boolean {
    const { phase } = this.#ownership.state;
    return phase === "owner" || phase === "refused";
  }

  #enqueue(event: DestEvent): void {
    this.#ownership.apply(event).catch((error: unknown) => {
      this.#logger.error({ err: error, event: event.kind }, "event refused");
      if (event.kind !== "failed") this.fail(error);
    });
  }

  /** A link that is gone loses nothing: the source asks again. */
  #send(message: ControlMessage): void {
    try {
      this.#channel.send(message);
    } catch (error) {
      this.#logger.debug({ kind: message.kind, reason: messageOf(error) }, "not sent");
    }
  }

  /** The reason that is told everywhere: ours, or that of the transition itself. */
  #refusal(code: string): Failure {
    const known: ProblemCode = asProblemCode(code, "peer-refused");
    this.#failure ??= { code: known, detail: `the dest refused: ${code}` };
    return this.#failure;
  }

  #about(stun: StunRef): StunRef & { readonly incarnation: string } {
    return { ...stun, incarnation: this.#ports.incarnation };
  }
}

interface Digests {
  readonly ramDigest: string;
  readonly diskDigests: string[];
}

function stunOf({ migrationId, epoch, generation }: StunRef): StunRef {
  return { migrationId, epoch, generation };
}

/**
 * A guest that was on its way in when this agent ended: carries out what the journal says is still
 * to be done, and answers its source.
 */
import type { Clock } from "@vmferry/core";
import {
  failureOf,
  newMigrationObject,
  ProblemError,
  UNKNOWN_RESULT,
  type Journal,
  type Logger,
  type MigrationStore,
  type WitnessPort,
} from "@vmferry/agent";
import type { DestOwnership, DestStep } from "@vmferry/protocol";
import type { Claim } from "./claim.ts";
import { DestHandOver } from "./dest-hand-over.ts";
import { agentStopped, notDue } from "./session-errors.ts";
import {
  doubtText,
  heldDiskText,
  LACKING_MEMORY,
  lackingText,
  lostDiskText,
  lostMemoryText,
  stuckText,
  unservedDisksText,
} from "./doubt-text.ts";
import { followDisks } from "./follow-disks.ts";
import type { GuestHolding } from "./guest-holding.ts";
import type { LazyDisks } from "./lazy-disks.ts";
import type { MemoryFetch } from "./memory-fetch.ts";
import { OpenDoubts } from "./open-doubts.ts";

export interface RecoveredDisks {
  readonly disks: Pick<
    LazyDisks,
    "progress" | "isWhole" | "lost" | "onFailed" | "onLost" | "onStuck"
  >;
  whole(): Promise<void>;
}

export interface RecoveredArrivalPorts {
  readonly store: MigrationStore;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly journal: Pick<Journal<"dest">, "append" | "incarnation" | "close">;
  /** The guest's name. */
  readonly guest: string;
  readonly uuid: string;
  readonly holding: GuestHolding;
  /** Null without a shared directory. */
  readonly witness: Pick<WitnessPort, "decide"> | null;
  readonly isWitnessed: () => boolean;
  /** Of its memory; null where nothing of that was arriving. */
  readonly fetch: Pick<MemoryFetch, "lost" | "isWhole" | "whole" | "close"> | null;
  /** Of its disks; null where none of them follows. */
  readonly lazy: RecoveredDisks | null;
  /** Shows that the guest is not free, and that it is again. */
  readonly occupy: (migrationId: string | null) => void;
}

export class RecoveredArrival {
  readonly handOver: DestHandOver;
  readonly uuid: string;
  readonly guestName: string;
  readonly #ports: RecoveredArrivalPorts;
  readonly #step: DestStep;
  readonly #doubts: OpenDoubts;
  #isAnnounced = false;

  /** `step` is what `recoverDest` says of the record that `claim` belongs to. */
  constructor(ports: RecoveredArrivalPorts, claim: Claim, step: DestStep) {
    this.#ports = ports;
    this.#step = step;
    this.uuid = ports.uuid;
    this.guestName = ports.guest;
    this.#doubts = new OpenDoubts((text) => {
      this.#showDoubt(claim.stun.migrationId, text);
    });
    const logger = ports.logger.child({ migrationId: claim.stun.migrationId, guest: ports.guest });
    this.handOver = new DestHandOver(
      {
        ...ports,
        logger,
        holding: () => ports.holding,
        fetch: () => this.#fetchRest(),
        lacks: () => lackingText(ports.lazy?.disks ?? null) ?? this.#lackingMemory(),
        onState: (state) => {
          this.#follow(state);
        },
        onStunned: () => undefined,
        onOther: (message) => {
          this.handOver.fail(notDue(message));
        },
      },
      claim,
      step.state,
    );
  }

  /**
   * Never rejects. Ends when the guest is ours or refused for ever, or the agent stops; where nothing
   * was promised of it, when it is gone.
   */
  async run(): Promise<void> {
    const { handOver } = this;
    const { holding, occupy, journal, logger } = this.#ports;
    const { migrationId } = handOver.claim.stun;
    occupy(migrationId);
    if (handOver.state.phase !== "none") this.#announce(migrationId);
    this.#follow(handOver.state);
    handOver.watch(holding);
    try {
      await handOver.perform(this.#step.actions);
      if (handOver.state.phase === "down") this.#fetchDisks().catch(() => undefined);
      if (handOver.state.phase === "prepared") this.#awaitSource();
      if (handOver.state.phase !== "none") {
        await Promise.race([handOver.until("owner", "refused"), handOver.left]);
      }
      await handOver.idle();
    } catch (error) {
      if (handOver.isLeft) return;
      logger.error({ err: error }, "the hand-over cannot go on; the guest stays as it is");
      holding.inDoubt();
      return;
    }
    if (handOver.isLeft) return;
    occupy(null);
    this.#ports.fetch?.close();
    this.#conclude(migrationId);
    await journal.close();
  }

  /** A source that offers the guest anew has rolled this attempt back. */
  supersede({
    epoch,
    incarnation,
  }: {
    readonly epoch: number;
    readonly incarnation: string;
  }): void {
    const { claim } = this.handOver;
    if (incarnation === claim.incarnation && epoch >= claim.stun.epoch) {
      this.handOver.fail(agentStopped());
    }
  }

  /** What may still be refused waits for the next life: its source may come until then. */
  async stop(): Promise<void> {
    await this.handOver.stop();
  }

  async #fetchRest(): Promise<void> {
    const { fetch, lazy, store } = this.#ports;
    const { migrationId } = this.handOver.claim.stun;
    if (fetch === null && lazy === null) return;
    store.phase(migrationId, "post-copy");
    await Promise.all([this.#fetchMemory(), this.#fetchDisks()]);
  }

  async #fetchMemory(): Promise<void> {
    await this.#ports.fetch?.whole((lost) => {
      // Else its QEMU has gone meanwhile, and that is what is shown.
      if (this.handOver.state.phase !== "fetching") return;
      this.#doubts.set("memory", lost === null ? null : lostMemoryText(lost));
    });
  }

  /** What only a QEMU that lives could still be given. */
  #lackingMemory(): string | null {
    const { fetch, holding } = this.#ports;
    return fetch?.isWhole === false && holding.isAlive() ? LACKING_MEMORY : null;
  }

  /** Before it was taken nothing is lost: a guest that would lack memory or a disk goes back to its source. */
  #awaitSource(): void {
    const { fetch, lazy } = this.#ports;
    const lost = fetch?.lost ?? lazy?.disks.lost ?? null;
    if (lost === null) this.handOver.awaitSource(agentStopped());
    else this.handOver.fail(new ProblemError(lost.message, { code: "dest-qemu-failed" }));
  }

  /** Also for a guest whose QEMU is gone: its disks may be all that is left of it. */
  async #fetchDisks(): Promise<void> {
    const { lazy, store, clock } = this.#ports;
    if (lazy === null) return;
    const { migrationId } = this.handOver.claim.stun;
    const { disks } = lazy;
    disks.onFailed = (error) => {
      this.#doubts.set("disks", lostDiskText(error));
    };
    disks.onStuck = (reason) => {
      this.#doubts.set("export", reason && heldDiskText(reason));
    };
    disks.onLost = (lost) => {
      this.#doubts.set("images", lost && unservedDisksText(lost));
    };
    disks.onLost(disks.lost);
    const arrival = { isOver: false };
    void followDisks(disks, {
      clock,
      isOver: () => arrival.isOver,
      show: (progress) => {
        store.update(migrationId, () => ({ disks: progress }));
      },
    });
    try {
      await lazy.whole();
    } finally {
      arrival.isOver = true;
    }
  }

  #showDoubt(id: string, text: string | null): void {
    const { store } = this.#ports;
    const { state } = this.handOver;
    if (text !== null) store.inDoubt(id, text);
    else if (state.phase === "down") store.inDoubt(id, doubtText(state, id));
    else store.phase(id, "post-copy");
  }

  #announce(id: string): void {
    const { store, guest } = this.#ports;
    this.#isAnnounced = true;
    const about = { guest, destination: "here", startedAt: null };
    const object = { id, role: "dest", ...about } as const;
    store.createUnlessKnown({ ...newMigrationObject(object), mayCancel: false });
    if (this.#step.state.phase === "prepared") store.phase(id, "handing-over");
  }

  #follow(state: DestOwnership): void {
    const { holding, store } = this.#ports;
    const { epoch, migrationId } = this.handOver.claim.stun;
    const { stuckBecause } = this.handOver;
    if (stuckBecause !== null) {
      if (!this.#isAnnounced) this.#announce(migrationId);
      store.inDoubt(migrationId, stuckText(stuckBecause));
    }
    if (state.phase === "owner" || state.phase === "fetching") holding.owned(epoch);
    if (state.phase === "unclear" || state.phase === "down") {
      holding.inDoubt();
      store.inDoubt(migrationId, doubtText(state, migrationId));
    }
  }

  #conclude(id: string): void {
    const { store } = this.#ports;
    const { phase } = this.handOver.state;
    if (!this.#isAnnounced) return;
    if (phase === "refused" || phase === "none") {
      const error = phase === "none" ? failureOf(agentStopped(), "dest") : this.handOver.failure;
      store.finish(id, { phase: "failed", error });
      return;
    }
    store.finish(id, { phase: "completed", result: UNKNOWN_RESULT });
  }
}

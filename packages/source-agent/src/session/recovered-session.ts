/**
 * A hand-over that an earlier life of this agent left behind: carries out what the journal says is
 * still to be done, and asks the dest until it has answered. No memory and no disk travels any more.
 */
import {
  asProblemCode,
  newMigrationObject,
  ProblemError,
  type Failure,
  type Logger,
  type MigrationStore,
} from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import {
  CloseCode,
  type ControlMessage,
  type SourceOwnership,
  type SourceStep,
  type StunRef,
} from "@vmferry/protocol";
import { ControlLink, type ControlLinkOptions } from "./control-link.ts";
import { doubtText } from "./doubt-text.ts";
import type { LeavingSession } from "./leaving-session.ts";
import {
  SETTLED_BY_WITNESS,
  SourceHandOver,
  type MovingGuest,
  type SourceHandOverPorts,
} from "./source-hand-over.ts";

/** How long a dest is told that a migration was rolled back; it finds out by itself, too. */
const ABORT_MS_MAX = 30_000;

export interface RecoveredSessionPorts
  extends ControlLinkOptions, Pick<SourceHandOverPorts, "qemu" | "journal" | "peer" | "witness"> {
  readonly guest: MovingGuest & { busyWith: string | null };
  readonly closeJournal: () => Promise<void>;
  /** The guest is to run here: gives it its disks back. */
  readonly bringBack: () => Promise<void>;
  /** The guest has gone: nobody may start it again from what it left here. */
  readonly markLeft: (epoch: number) => Promise<void>;
  readonly store: MigrationStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class RecoveredSession implements LeavingSession {
  readonly #ports: RecoveredSessionPorts;
  readonly #stun: StunRef;
  readonly #step: SourceStep;
  readonly #ownership: SourceHandOver;
  readonly #link: ControlLink;
  #failure: Failure | null = null;
  #stopped = false;
  /** Null before the guest was seen to have been handed over. */
  #marked: Promise<void> | null = null;

  /** `step` is what `recoverSource` says of the record about `stun`. */
  constructor(ports: RecoveredSessionPorts, stun: StunRef, step: SourceStep) {
    this.#ports = ports;
    this.#stun = stun;
    this.#step = step;
    this.#link = new ControlLink(ports);
    this.#ownership = new SourceHandOver(
      {
        ...ports,
        link: () => this.#link,
        failure: () => this.#failure,
        giveBack: async () => {
          await this.#marked;
          await ports.bringBack();
        },
        forwardShut: () => undefined,
        onRevoked: () => {
          this.#failure = SETTLED_BY_WITNESS;
        },
        onState: (state) => {
          this.#follow(state);
        },
        onFailed: () => undefined,
      },
      step.state,
    );
  }

  /** Never rejects. Ends when the guest is settled, or the agent stops. */
  async run(): Promise<void> {
    const { guest, logger } = this.#ports;
    guest.busyWith = this.#stun.migrationId;
    this.#announce();
    this.#follow(this.#step.state);
    this.#link.listen((message) => {
      this.#received(message);
    });
    try {
      await this.#finish();
    } catch (error) {
      logger.error({ err: error }, "the hand-over cannot go on; the guest stays as it is");
      guest.inDoubt();
      this.#inDoubt();
    }
    this.#link.close(CloseCode.DONE);
    await this.#ports.closeJournal();
  }

  cancel(): void {
    throw new ProblemError("The guest has been handed over; only the dest can answer now.", {
      code: "past-hand-over",
    });
  }

  setLimits(): void {
    this.cancel();
  }

  async settle(owner: "source" | "dest"): Promise<void> {
    const detail = `an operator said that the guest is the ${owner}'s`;
    if (owner === "source") this.#failure = { code: "settled-by-operator", detail };
    await this.#ownership.settle(owner);
  }

  stop(): void {
    this.#stopped = true;
    this.#link.close(CloseCode.SESSION_ENDED);
  }

  async #finish(): Promise<void> {
    const ownership = this.#ownership;
    const { phase } = ownership.state;
    await ownership.perform(this.#step.actions);
    if (phase === "handed-off" || phase === "released") {
      await ownership.awaitAnswer({ stopped: () => this.#stopped, onLost: () => undefined });
    }
    if (this.#stopped) return;
    await ownership.until("done", "owner");
    await ownership.idle();
    this.#ports.guest.busyWith = null;
    this.#conclude(ownership.state);
    if (this.#step.actions.some((action) => action.do === "send-abort")) await this.#tellDest();
  }

  /** The dest of a migration that was rolled back need not wait. */
  async #tellDest(): Promise<void> {
    const { clock } = this.#ports;
    const untilMs = clock.nowMs() + ABORT_MS_MAX;
    const about = this.#ownership.about(this.#stun);
    for (let delayMs = 100; clock.nowMs() < untilMs && !this.#stopped; delayMs *= 2) {
      if (await this.#link.resume(about)) {
        this.#link.send({ kind: "abort", ...about, code: "agent-stopped", text: ROLLED_BACK });
        return;
      }
      await new Promise<void>((resolve) => {
        clock.after(delayMs, resolve);
      });
    }
  }

  #received(message: ControlMessage): void {
    switch (message.kind) {
      case "refused":
        this.#failure = {
          code: asProblemCode(message.code, "peer-refused"),
          detail: message.text,
        };
        break;
      case "reject":
        // A dest that knows nothing of it is not believed: it may have lost its journal.
        this.#ports.logger.warn({ code: message.code, reason: message.text }, "the dest rejects");
        return;
      case "prepared":
      case "taken":
      case "complete":
        break;
      default:
        return;
    }
    this.#ownership.answered(message);
  }

  #follow(state: SourceOwnership): void {
    const { guest, store } = this.#ports;
    const { phase } = state;
    if (phase === "owner") guest.owned(state.epoch);
    if (phase === "handed-off" || phase === "unclear") {
      guest.inDoubt();
      this.#inDoubt();
    }
    if (phase === "released") {
      guest.handedOff();
      store.phase(this.#stun.migrationId, "completing");
    }
    if (phase === "handed-off" || phase === "released" || phase === "done") {
      this.#marked ??= this.#ports.markLeft(this.#stun.epoch - 1);
    }
  }

  #announce(): void {
    const { guest, peer: destination, store, clock } = this.#ports;
    const { migrationId: id } = this.#stun;
    const startedAt = clock.date();
    const object = { id, role: "source", guest: guest.name, destination, startedAt } as const;
    store.create({ ...newMigrationObject(object), mayCancel: false });
  }

  #inDoubt(): void {
    const { store, peer: dest } = this.#ports;
    const { migrationId: id } = this.#stun;
    store.inDoubt(id, doubtText(this.#ownership.state, { id, dest }));
  }

  #conclude({ phase }: SourceOwnership): void {
    const { store, logger } = this.#ports;
    const { migrationId } = this.#stun;
    logger.info({ ownership: phase }, "a hand-over of an earlier life has ended");
    if (phase === "done") store.finish(migrationId, { phase: "completed", result: UNKNOWN });
    else {
      const error = this.#failure ?? { code: "agent-stopped", detail: ROLLED_BACK };
      store.finish(migrationId, { phase: "failed", error });
    }
  }
}

const ROLLED_BACK = "the source agent ended in the middle of the migration; the guest stayed";

/** What nobody has counted. */
const UNKNOWN = {
  downtimeMs: null,
  totalMs: null,
  wireBytes: 0,
  ramDigest: null,
  diskDigests: {},
};

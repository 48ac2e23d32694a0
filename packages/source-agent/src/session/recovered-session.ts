/**
 * A hand-over that an earlier life of this agent left behind: carries out what the journal says is
 * still to be done, and asks the dest until it has answered. Memory that follows a guest is served
 * from where that life has stored it; nothing else travels any more.
 */
import {
  asProblemCode,
  newMigrationObject,
  type Decision,
  UNKNOWN_RESULT,
  type Failure,
  type GivenBack,
  type Logger,
  type MigrationStore,
} from "@vmferry/agent";
import { Deferred, type Clock } from "@vmferry/core";
import {
  CloseCode,
  UNKNOWN_MAP,
  type ControlMessage,
  type MigrationDisk,
  type MigrationLimitsPatch,
  type MigrationMap,
  type SourceOwnership,
  type SourceStep,
  type StunRef,
} from "@vmferry/protocol";
import { NO_COUNTS } from "../disk/disk-counters.ts";
import type { DiskRest, DiskRestProgress } from "../disk/disk-rest.ts";
import type { LeftDiskRest } from "../disk/left-rest.ts";
import { ControlLink, type ControlLinkOptions } from "./control-link.ts";
import { mayBeAskedFor, type MemoryRest, type RestProgress } from "../postcopy/memory-rest.ts";
import type { StoredRest } from "../postcopy/stored-rest.ts";
import {
  doubtText,
  lackingText,
  LOST_FLUSH,
  stuckText,
  unaskedText,
  unservedDisksText,
  unservedMemoryText,
} from "./doubt-text.ts";
import { asServed, withServed } from "./progress-report.ts";
import { followingBytes, followRest } from "./follow-rest.ts";
import { pastHandOver } from "./hand-over-refusals.ts";
import type { LeavingSession } from "./leaving-session.ts";
import { LeftServing } from "./left-serving.ts";
import { SourceHandOver, type MovingGuest, type SourceHandOverPorts } from "./source-hand-over.ts";
import { tellRolledBack } from "./tell-rolled-back.ts";

export interface RecoveredSessionPorts
  extends ControlLinkOptions, Pick<SourceHandOverPorts, "qemu" | "journal" | "peer" | "witness"> {
  readonly guest: MovingGuest & { busyWith: string | null };
  /** Why the dest is never called in this life; null where it is. */
  readonly peerRefusal: string | null;
  readonly closeJournal: () => Promise<void>;
  /** The guest is to run here: gives it its disks back. */
  readonly bringBack: () => Promise<GivenBack>;
  /** What of its memory the dest may still lack. */
  readonly rest: Pick<StoredRest, "exists" | "discard"> & { serve(): Promise<LeftRest | null> };
  /** What of its disks the dest may still lack. */
  readonly leftDisks: Pick<LeftDiskRest, "exists" | "discard"> & {
    serve(): Promise<LeftDisksRest | null>;
  };
  /** The guest has gone: nobody may start it again from what it left here. */
  readonly markLeft: (epoch: number) => Promise<void>;
  readonly store: MigrationStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

export type LeftRest = Pick<MemoryRest, "progress" | "setBandwidthLimit" | "close">;
export type LeftDisksRest = Pick<DiskRest, "progress" | "setBandwidthLimit" | "close">;

export class RecoveredSession implements LeavingSession {
  readonly #ports: RecoveredSessionPorts;
  readonly #stun: StunRef;
  readonly #step: SourceStep;
  readonly #ownership: SourceHandOver;
  readonly #link: ControlLink;
  #failure: Failure | null = null;
  #stopped = false;
  /** What the witness has said. */
  #known: Decision | null = null;
  /** The dest has said that it lacks nothing; an operator's word is not that. */
  #isWhole = false;
  readonly #memory: LeftServing<LeftRest>;
  readonly #disks: LeftServing<LeftDisksRest>;
  readonly #stopping = new Deferred();
  /** Null before the guest was seen to have been handed over. */
  #marked: Promise<void> | null = null;

  /** `step` is what `recoverSource` says of the record about `stun`. */
  constructor(ports: RecoveredSessionPorts, stun: StunRef, step: SourceStep) {
    this.#ports = ports;
    this.#stun = stun;
    this.#step = step;
    this.#link = new ControlLink(ports);
    this.#memory = new LeftServing({
      ...{ ...ports, what: "memory", left: ports.rest },
      onChange: () => {
        this.#servingChanged(this.#memory, this.#showMemory.bind(this));
      },
    });
    this.#disks = new LeftServing({
      ...{ ...ports, what: "disks", left: ports.leftDisks },
      onChange: () => {
        this.#servingChanged(this.#disks, this.#showDisks.bind(this));
      },
    });
    this.#ownership = new SourceHandOver(
      {
        ...ports,
        link: () => this.#link,
        failure: () => this.#failure,
        giveBack: async () => {
          await this.#marked;
          // Its guest is going to write to them.
          await this.#disks.close();
          const given = await ports.bringBack();
          if (given === "suspect") {
            this.#failure = { code: "source-disk-failed", detail: LOST_FLUSH };
          }
          return given;
        },
        forwardShut: () => undefined,
        onBack: (failure) => {
          this.#failure = failure;
        },
        lacks: () => this.#lacks(),
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
    // What the dest said before the agent was stopped may still have to be written down.
    await this.#ownership.idle();
    await this.#memory.close();
    await this.#disks.close();
    if (!mayBeAskedFor(this.#ownership.state)) {
      await this.#ports.rest.discard();
      await this.#ports.leftDisks.discard();
    }
    // Whoever waits for the end may want to begin anew at once.
    await this.#ports.closeJournal();
    if (this.#step.actions.some((action) => action.do === "send-abort")) await this.#tellDest();
    this.#link.close(CloseCode.DONE);
  }

  /** What was copied, an earlier life knew. */
  map(): MigrationMap {
    return UNKNOWN_MAP;
  }

  cancel(): void {
    throw pastHandOver();
  }

  setLimits({ bandwidthBytesPerSecond, ...others }: MigrationLimitsPatch): void {
    const isBandwidth = bandwidthBytesPerSecond !== undefined && Object.keys(others).length === 0;
    const follows = [this.#memory.rest, this.#disks.rest].filter((rest) => rest !== null);
    if (follows.length === 0 || !isBandwidth) this.cancel();
    else for (const rest of follows) rest.setBandwidthLimit(bandwidthBytesPerSecond);
  }

  postcopy(): void {
    this.cancel();
  }

  async settle(owner: "source" | "dest"): Promise<void> {
    const detail = `an operator said that the guest is the ${owner}'s`;
    if (owner === "source") this.#failure = { code: "settled-by-operator", detail };
    await this.#ownership.settle(owner);
  }

  stop(): void {
    this.#stopped = true;
    this.#stopping.resolve();
    this.#ownership.stop();
    this.#link.close(CloseCode.SESSION_ENDED);
  }

  async #finish(): Promise<void> {
    const ownership = this.#ownership;
    // The guest may run at the dest already.
    if (mayBeAskedFor(ownership.state)) this.#memory.begin();
    // A guest that somebody has started is stopped before its images are looked at.
    await ownership.perform(this.#step.actions);
    if (ownership.state.phase === "unclear") {
      // By a person, who may say that the dest has it and gets what it lacks.
      const led = ownership.until("released", "done", "reclaimed", "owner");
      await Promise.race([led, this.#stopping.promise]);
    }
    const { phase } = ownership.state;
    if (phase === "handed-off" || phase === "released") {
      this.#disks.begin();
      // A dest that lacks nothing says so, whether or not it could be served.
      await ownership.awaitAnswer({
        stopped: () => this.#stopped,
        onLost: () => undefined,
        onOverdue: (known) => {
          this.#known = known;
          this.#inDoubt();
        },
      });
    }
    if (this.#stopped) return;
    // What nobody has settled, or what does not run yet, is for the next life.
    await Promise.race([ownership.until("done", "owner"), this.#stopping.promise]);
    await ownership.idle();
    const isOver = ownership.state.phase === "done" || ownership.state.phase === "owner";
    if (!isOver) return;
    this.#ports.guest.busyWith = null;
    this.#conclude(ownership.state);
  }

  #servingChanged<Progress>(
    { rest }: { readonly rest: { readonly progress: Progress } | null },
    show: (progress: Progress) => void,
  ): void {
    this.#follow(this.#ownership.state);
    if (rest === null) return;
    void followRest(rest, { clock: this.#ports.clock, isOver: () => this.#isOver, show });
  }

  get #isOver(): boolean {
    return this.#stopped || !mayBeAskedFor(this.#ownership.state);
  }

  #showMemory(progress: RestProgress): void {
    const { remainingBytes, requestedPages, wireBytes, reconnects, fallback } = progress;
    this.#ports.store.update(this.#stun.migrationId, ({ ram, faults, wire }) => ({
      ram: { ...ram, remainingBytes },
      faults: { ...faults, count: requestedPages },
      fallback,
      wire: { ...wire, bytes: wireBytes, reconnects },
    }));
  }

  #showDisks(progress: DiskRestProgress): void {
    const { wireBytes: bytes, reconnects } = progress;
    this.#ports.store.update(this.#stun.migrationId, ({ disks, wire }) => ({
      disks: withServed(disks.length > 0 ? disks : progress.disks.map(asDisk), progress),
      // Memory that follows, too, shows what both ways have carried by its own figures.
      ...(this.#memory.rest === null ? { wire: { ...wire, bytes, reconnects } } : {}),
    }));
  }

  /** Also what is there and cannot be served. */
  async #lacks(): Promise<string | null> {
    const { peer: destination, rest: left, leftDisks } = this.#ports;
    const [{ rest }, { rest: diskRest }] = [this.#memory, this.#disks];
    const [memory, disks] = await Promise.all([
      rest !== null || left.exists(),
      diskRest !== null || leftDisks.exists(),
    ]);
    if (!memory && !disks) return null;
    const isServed = memory === (rest !== null) && disks === (diskRest !== null);
    const following = followingBytes({ rest, diskRest });
    const { migrationId: id } = this.#stun;
    return lackingText(isServed ? following : null, { id, destination });
  }

  get #follows(): boolean {
    return this.#memory.rest !== null || this.#disks.rest !== null;
  }

  #tellDest(): Promise<void> {
    const about = this.#ownership.about(this.#stun);
    return tellRolledBack({
      link: this.#link,
      abort: { kind: "abort", ...about, code: "agent-stopped", text: ROLLED_BACK },
      clock: this.#ports.clock,
      stopped: () => this.#stopped,
    });
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
      case "complete":
        this.#isWhole = true;
        break;
      case "prepared":
      case "taken":
        break;
      default:
        return;
    }
    this.#ownership.answered(message);
  }

  #follow(state: SourceOwnership): void {
    const { guest, store } = this.#ports;
    const { phase } = state;
    const { stuckBecause } = this.#ownership;
    if (stuckBecause !== null) {
      guest.inDoubt();
      store.inDoubt(this.#stun.migrationId, stuckText(stuckBecause));
    }
    if (phase === "owner") guest.owned(state.epoch);
    if (phase === "handed-off" || phase === "unclear") {
      guest.inDoubt();
      this.#inDoubt();
    }
    if (phase === "released" || phase === "done") guest.handedOff();
    if (phase === "released") {
      if (this.#obstacles.length > 0) this.#inDoubt();
      else store.phase(this.#stun.migrationId, this.#follows ? "post-copy" : "completing");
      this.#disks.begin();
    }
    if (phase === "handed-off" || phase === "released" || phase === "done") {
      this.#marked ??= this.#ports.markLeft(this.#stun.epoch - 1);
    }
  }

  #announce(): void {
    const { guest, peer: destination, store } = this.#ports;
    const { migrationId: id } = this.#stun;
    const about = { guest: guest.name, destination, startedAt: null };
    const object = { id, role: "source", ...about } as const;
    store.createUnlessKnown({ ...newMigrationObject(object), mayCancel: false });
  }

  #inDoubt(): void {
    const { store, peer: destination } = this.#ports;
    const { migrationId: id } = this.#stun;
    const { state } = this.#ownership;
    // Whose it is is known where it was released.
    const journey = { id, destination };
    const doubt = state.phase === "released" ? null : doubtText(state, journey, this.#known);
    const texts = [doubt, ...this.#obstacles].filter((text) => text !== null);
    store.inDoubt(id, texts.join(" "));
  }

  /** What keeps the hand-over from its end, beside an answer that is due. */
  get #obstacles(): string[] {
    const [memory, disks] = [this.#memory.refusal, this.#disks.refusal];
    const { peerRefusal } = this.#ports;
    return [
      ...(peerRefusal === null ? [] : [unaskedText(peerRefusal)]),
      ...(memory === null ? [] : [unservedMemoryText(memory)]),
      ...(disks === null ? [] : [unservedDisksText(disks)]),
    ];
  }

  #conclude({ phase }: SourceOwnership): void {
    const { store, logger, guest } = this.#ports;
    const { migrationId } = this.#stun;
    logger.info({ ownership: phase }, "a hand-over of an earlier life has ended");
    if (phase === "done") {
      const rest = this.#isWhole ? this.#disks.rest : null;
      if (rest !== null) this.#showDisks(asServed(rest.progress));
      store.finish(migrationId, { phase: "completed", result: UNKNOWN_RESULT });
    } else {
      const error = this.#failure ?? {
        code: "agent-stopped",
        detail: guest.alive ? ROLLED_BACK : ROLLED_BACK_DEAD,
      };
      store.finish(migrationId, { phase: "failed", error });
    }
  }
}

/** As far as it is known after a restart. */
function asDisk({ id, totalBytes }: DiskRestProgress["disks"][number]): MigrationDisk {
  const counts = { ...NO_COUNTS, heldBytes: 0, round: 0 };
  return { ...counts, id, mode: "copy", totalBytes, remainingBytes: totalBytes };
}

const ROLLED_BACK = "the source agent ended in the middle of the migration; the guest stayed";
const ROLLED_BACK_DEAD =
  "the source agent ended in the middle of the migration, and the guest's QEMU is gone as well; its " +
  "disks are here and whole";

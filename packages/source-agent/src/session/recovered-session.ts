/**
 * A hand-over that an earlier life of this agent left behind: carries out what the journal says is
 * still to be done, and asks the dest until it has answered. Memory that follows a guest is served
 * from where that life has stored it; nothing else travels any more.
 */
import {
  asProblemCode,
  newMigrationObject,
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
import type { DiskRestProgress } from "../disk/disk-rest.ts";
import type { LeftDiskRest } from "../disk/left-rest.ts";
import { ControlLink, type ControlLinkOptions } from "./control-link.ts";
import { mayBeAskedFor, type MemoryRest, type RestProgress } from "../postcopy/memory-rest.ts";
import type { StoredRest } from "../postcopy/stored-rest.ts";
import { doubtText, lackingText, LOST_FLUSH, stuckText, unservedText } from "./doubt-text.ts";
import { asServed, withServed } from "./progress-report.ts";
import { followingBytes, followRest } from "./follow-rest.ts";
import { pastHandOver } from "./hand-over-refusals.ts";
import type { LeavingSession } from "./leaving-session.ts";
import { LeftDisksServing, type LeftDisksRest } from "./serve-left-disks.ts";
import { SourceHandOver, type MovingGuest, type SourceHandOverPorts } from "./source-hand-over.ts";
import { tellRolledBack } from "./tell-rolled-back.ts";

export interface RecoveredSessionPorts
  extends ControlLinkOptions, Pick<SourceHandOverPorts, "qemu" | "journal" | "peer" | "witness"> {
  readonly guest: MovingGuest & { busyWith: string | null };
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

type ShowUntil = Pick<Parameters<typeof followRest>[1], "clock" | "isOver">;

export type LeftRest = Pick<MemoryRest, "progress" | "setBandwidthLimit" | "close">;

export class RecoveredSession implements LeavingSession {
  readonly #ports: RecoveredSessionPorts;
  readonly #stun: StunRef;
  readonly #step: SourceStep;
  readonly #ownership: SourceHandOver;
  readonly #link: ControlLink;
  #failure: Failure | null = null;
  #stopped = false;
  /** The dest has said that it lacks nothing; an operator's word is not that. */
  #isWhole = false;
  /** Null where nothing of memory follows the guest. */
  #rest: LeftRest | null = null;
  readonly #disks: LeftDisksServing;
  readonly #stopping = new Deferred();
  /** Null before the guest was seen to have been handed over. */
  #marked: Promise<void> | null = null;

  /** `step` is what `recoverSource` says of the record about `stun`. */
  constructor(ports: RecoveredSessionPorts, stun: StunRef, step: SourceStep) {
    this.#ports = ports;
    this.#stun = stun;
    this.#step = step;
    this.#link = new ControlLink(ports);
    this.#disks = new LeftDisksServing({
      ...ports,
      onChange: () => {
        this.#disksChanged();
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
    await this.#rest?.close();
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
    const follows = [this.#rest, this.#disks.rest].filter((rest) => rest !== null);
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
    if (mayBeAskedFor(ownership.state)) await this.#serveMemory();
    // A guest that somebody has started is stopped before its images are looked at.
    await ownership.perform(this.#step.actions);
    if (ownership.state.phase === "unclear") {
      // By a person, who may say that the dest has it and gets what it lacks.
      const led = ownership.until("released", "done", "reclaimed", "owner");
      await Promise.race([led, this.#stopping.promise]);
    }
    await this.#serveDisks();
    const { phase } = ownership.state;
    if (phase === "handed-off" || phase === "released") {
      await ownership.awaitAnswer({ stopped: () => this.#stopped, onLost: () => undefined });
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

  /** What the dest lacks is served from now on; it may run already. */
  async #serveMemory(): Promise<void> {
    const { clock } = this.#ports;
    this.#rest = await this.#ports.rest.serve();
    if (this.#rest === null) return;
    this.#follow(this.#ownership.state);
    this.#showMemory(this.#rest, { clock, isOver: () => this.#isOver });
  }

  /** Where nobody knows what the guest's QEMU does here, its images may be anything. */
  async #serveDisks(): Promise<void> {
    const { phase } = this.#ownership.state;
    if (phase === "handed-off" || phase === "released") await this.#disks.begin();
  }

  #disksChanged(): void {
    this.#follow(this.#ownership.state);
    const { rest } = this.#disks;
    if (rest === null) return;
    const show = this.#showDisks.bind(this);
    void followRest(rest, { clock: this.#ports.clock, isOver: () => this.#isOver, show });
  }

  get #isOver(): boolean {
    return this.#stopped || !mayBeAskedFor(this.#ownership.state);
  }

  #showMemory(rest: LeftRest, until: ShowUntil): void {
    const { store } = this.#ports;
    const show = ({
      remainingBytes,
      requestedPages,
      wireBytes,
      reconnects,
      fallback,
    }: RestProgress): void => {
      store.update(this.#stun.migrationId, ({ ram, faults, wire }) => ({
        ram: { ...ram, remainingBytes },
        faults: { ...faults, count: requestedPages },
        fallback,
        wire: { ...wire, bytes: wireBytes, reconnects },
      }));
    };
    void followRest(rest, { ...until, show });
  }

  #showDisks(progress: DiskRestProgress): void {
    const { wireBytes: bytes, reconnects } = progress;
    this.#ports.store.update(this.#stun.migrationId, ({ disks, wire }) => ({
      disks: withServed(disks.length > 0 ? disks : progress.disks.map(asDisk), progress),
      // Memory that follows, too, shows what both ways have carried by its own figures.
      ...(this.#rest === null ? { wire: { ...wire, bytes, reconnects } } : {}),
    }));
  }

  /** Also what is there and cannot be served. */
  async #lacks(): Promise<string | null> {
    const { peer: destination, rest, leftDisks } = this.#ports;
    const [memory, disks] = await Promise.all([
      this.#rest !== null || rest.exists(),
      this.#disks.rest !== null || leftDisks.exists(),
    ]);
    if (!memory && !disks) return null;
    const isServed = memory === (this.#rest !== null) && disks === (this.#disks.rest !== null);
    const following = followingBytes({ rest: this.#rest, diskRest: this.#disks.rest });
    const { migrationId: id } = this.#stun;
    return lackingText(isServed ? following : null, { id, destination });
  }

  get #follows(): boolean {
    return this.#rest !== null || this.#disks.rest !== null;
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
      store.phase(this.#stun.migrationId, this.#follows ? "post-copy" : "completing");
      if (this.#disks.refusal !== null) this.#inDoubt();
      void this.#disks.begin();
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
    const { refusal } = this.#disks;
    const doubt = doubtText(state, { id, destination });
    const unserved = refusal === null ? null : unservedText(refusal);
    const texts = state.phase === "released" ? [unserved ?? doubt] : [doubt, unserved];
    store.inDoubt(id, texts.filter((text) => text !== null).join(" "));
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

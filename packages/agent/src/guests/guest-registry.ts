/**
 * The guests of this host. It starts QEMU, keeps the record by which a restarted agent finds it
 * again, and guards the two things that must be unique: a name, and the host's memory.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Logger } from "pino";
import { assert } from "@vmferry/core";
import type { GuestAttach, GuestDefinition, GuestObject, ProblemCode } from "@vmferry/protocol";
import {
  chooseAccelerator,
  probeKvmSupport,
  type Accelerator,
  type GuestProcess,
} from "@vmferry/qemu";
import type { EventHub } from "../events/event-hub.ts";
import type { GuestService } from "../http/guest-service.ts";
import { ProblemError } from "../problem-error.ts";
import {
  attachGuest,
  type AttachedQemu,
  type Attachment,
  type AttachPort,
} from "./attach-guest.ts";
import type { DiskRecoveryPort, EarlierDisks, GivenBack } from "./disk-recovery-port.ts";
import { diskSizesOf } from "./disk-sizes.ts";
import {
  EarlierGuests,
  isSilent,
  startedAs,
  type EarlierRecords,
  type FoundGuest,
  type SilentGuest,
} from "./earlier-guests.ts";
import { Guest, type OwnershipState } from "./guest.ts";
import { acceptImages } from "./image-marks.ts";
import { GuestRoom, type RoomCodes } from "./guest-room.ts";
import { launchProblem } from "./launch-problem.ts";
import { launchRecorded, type GuestBacking, type GuestLaunch } from "./launch-recorded.ts";
import { removeGuestRecord, writeGuestRecord, type GuestRecord } from "./guest-record.ts";
import { ShownGuests } from "./shown-guests.ts";
import { UnknownGuests } from "./unknown-guests.ts";

export interface GuestRegistryOptions {
  readonly qemu: string;
  readonly stateDir: string;
  readonly imageDir: string;
  /** What all guests together may have; null = what the host has free. */
  readonly guestMemoryBytesMax: number | null;
  readonly hub: EventHub;
  readonly logger: Logger;
  /** How long a QEMU of an earlier life may take to answer before the agent goes on without it. */
  readonly lookMsMax?: number;
  /** For guests whose agent died while it stood between them and their disks. */
  readonly diskRecovery?: DiskRecoveryPort;
  /** Without it, no QEMU is attached to. */
  readonly attach?: AttachPort;
}

/** What is known of a guest of an earlier life. */
export interface Admission {
  readonly ownership: OwnershipState | null;
  readonly epoch: number;
  /** The migration that is still at work on it, before anybody can begin another. */
  readonly busyWith: string | null;
}

export class GuestRegistry implements GuestService {
  readonly #options: GuestRegistryOptions;
  readonly #guests = new ShownGuests();
  readonly #unknown: UnknownGuests;
  readonly #room: GuestRoom;
  readonly #earlier: EarlierGuests;

  constructor(options: GuestRegistryOptions) {
    this.#options = options;
    this.#room = new GuestRoom(
      {
        has: (name) => this.#guests.get(name)?.alive === true || this.#unknown.has(name),
        memoryBytes: () => this.#usedBytes(),
      },
      options.guestMemoryBytesMax,
    );
    this.#unknown = new UnknownGuests(this.guestsDir);
    this.#earlier = new EarlierGuests(this.guestsDir, options.logger, options.lookMsMax);
  }

  list(): readonly GuestObject[] {
    return [...this.#guests.all().map((guest) => guest.object), ...this.#unknown.objects()];
  }

  get(name: string): GuestObject {
    return this.#unknown.object(name) ?? this.find(name).object;
  }

  /** Throws `guest-not-found`, and `guest-in-doubt` for one whose QEMU or record tells nothing. */
  find(name: string): Guest {
    const guest = this.#guests.get(name);
    if (guest !== undefined) return guest;
    this.#unknown.refuse(name);
    throw new ProblemError(`This agent has no guest ${name}.`, { code: "guest-not-found" });
  }

  async start(definition: GuestDefinition): Promise<GuestObject> {
    const accel = await this.#accelerator(definition);
    const guest = await this.#launch(
      { definition, accel, uuid: randomUUID(), epoch: 1, incoming: false },
      { exists: "guest-exists", memory: "host-memory-insufficient" },
    );
    return guest.object;
  }

  /** A QEMU that somebody else started: nothing of it is changed. */
  async attach(request: GuestAttach): Promise<GuestObject> {
    const { attach, imageDir } = this.#options;
    if (attach === undefined) {
      throw new ProblemError("This agent attaches to no QEMU.", { code: "not-available" });
    }
    const { name } = request;
    const directory = join(this.guestsDir, name);
    this.#room.reserveName(name);
    let qemu: AttachedQemu | null = null;
    try {
      this.#refuseTwin(({ process }) => process.identity.qmpPath === request.attach.qmp);
      const { attaching } = attach;
      qemu = await attachGuest({ request, attaching, directory, imageDir });
      const { process, uuid: ofGuest, running } = qemu;
      const uuid = attaching === "running" && ofGuest !== null ? ofGuest : randomUUID();
      this.#refuseTwin((guest) => guest.process.pid === process.pid || guest.uuid === uuid);
      const isOwned = attaching === "running";
      const epoch = isOwned ? await attach.takeOver({ guest: name, uuid }) : 0;
      const { definition, accel, attachment } = qemu;
      const record: GuestRecord = {
        ...{ definition, accel, uuid, epoch, attachment, ...startedAs(process) },
        stage: isOwned ? "owned" : "prepared",
      };
      await this.#options.diskRecovery?.forget(this.#disksOf(record));
      await writeGuestRecord(directory, record);
      const ownership = isOwned ? null : "incoming";
      const guest = await this.#add(record, process, { running, ownership, busyWith: null });
      // What QEMU said between the look and now was heard by nobody.
      await guest.look();
      return guest.object;
    } catch (error) {
      await qemu?.process.detach();
      throw error;
    } finally {
      this.#room.release(name);
    }
  }

  #refuseTwin(isTwin: (guest: Guest) => boolean): void {
    const twin = this.#guests.all().find((guest) => guest.alive && isTwin(guest));
    if (twin === undefined) return;
    throw new ProblemError(
      `That QEMU, or one with the same UUID, is guest ${twin.name} of this agent already.`,
      { code: "guest-attached" },
    );
  }

  /** A QEMU that stands still and waits for a migration. */
  async launchIncoming(
    launch: Omit<GuestLaunch, "incoming">,
    backing: GuestBacking | null = null,
  ): Promise<Guest> {
    return this.#launch(
      { ...launch, incoming: true },
      { exists: "dest-guest-exists", memory: "dest-memory-insufficient" },
      backing,
    );
  }

  /** One of that name is on its way here: an offer of the same guest may make it give way. */
  isArriving(name: string): boolean {
    const state = this.#guests.get(name)?.state;
    return this.#room.isStarting(name) || state === "incoming" || state === "in-doubt";
  }

  /** Throws `code` where a guest of that name is here. */
  refuseName(name: string, code: ProblemCode): void {
    this.#room.refuseName(name, code);
  }

  /** Throws `code` where there is not the memory for it. */
  refuseMemory(guest: Pick<GuestDefinition, "name" | "memoryBytes">, code: ProblemCode): void {
    this.#room.refuseMemory(guest, code);
  }

  /** A QEMU that was attached and waits for this guest; null without one, or where it is taken. */
  prepared(name: string): Guest | null {
    const guest = this.#guests.get(name);
    return guest?.isPrepared === true && guest.busyWith === null ? guest : null;
  }

  /** Names of the images of every QEMU that was attached and waits. */
  preparedImages(): ReadonlySet<string> {
    const waiting = this.#guests.all().filter((guest) => guest.isPrepared);
    return new Set(waiting.flatMap(({ definition }) => definition.disks.map(({ image }) => image)));
  }

  /** What was claimed is the guest that arrives from now on. */
  async takePrepared(
    { process, qemuVersion }: Guest,
    launch: Omit<GuestLaunch, "incoming"> & Pick<GuestRecord, "attachment">,
  ): Promise<Guest> {
    const { identity } = process;
    const record = { ...launch, qemuVersion, identity, stage: "incoming" } as const;
    await writeGuestRecord(process.paths.directory, record);
    const state = { running: false, ownership: "incoming", busyWith: null } as const;
    return this.#add(record, process, state);
  }

  async powerOff(name: string): Promise<GuestObject> {
    const guest = this.find(name);
    if (guest.busyWith !== null) {
      throw new ProblemError(`Guest ${name} is being migrated (${guest.busyWith}).`, {
        code: "guest-busy",
      });
    }
    if (guest.alive) {
      if (guest.state === "in-doubt") {
        throw new ProblemError(
          `Nobody can tell here whose guest ${name} is, and it may be the only one with its newest ` +
            `content. Look at this agent's log and migrations; to end it all the same, end its ` +
            `QEMU (process ${guest.process.pid}).`,
          { code: "guest-in-doubt" },
        );
      }
      // One that the agent did not start goes on without it.
      if (guest.attachment === null) await guest.quit();
      else await guest.process.detach();
    }
    await this.forget(guest);
    return guest.object;
  }

  /** What arrived is owned here, in `epoch`; resolves when a restarted agent would see it. */
  async keep(guest: Guest, epoch: number): Promise<void> {
    const { definition, accel, uuid, qemuVersion, process } = guest;
    const { identity, paths } = process;
    const attachment = guest.attachment ?? undefined;
    const about = { definition, accel, uuid, qemuVersion, epoch, identity, attachment };
    await writeGuestRecord(paths.directory, { ...about, stage: "owned" });
  }

  /** The guest's QEMU is gone and nobody asks for it again. */
  async forget(guest: Guest): Promise<void> {
    this.#guests.remove(guest);
    await removeGuestRecord(guest.process.paths.directory);
  }

  /** The guests that an earlier life of this agent started. */
  async findEarlier(): Promise<EarlierRecords> {
    const found = await this.#earlier.records();
    this.#unknown.foundUnreadable(found.unreadable);
    return found;
  }

  /** QEMU may wait for its disks before it says anything. */
  async reopenDisks(record: GuestRecord): Promise<void> {
    await this.#options.diskRecovery?.reopen(this.#disksOf(record));
  }

  /**
   * What has become of a guest of an earlier life. Whose it is is the caller's to say: it admits it,
   * or drops it. One that does not answer is shown as in doubt until it does.
   */
  async look(record: GuestRecord): Promise<FoundGuest | SilentGuest> {
    const seen = await this.#earlier.look(record);
    if (!isSilent(seen)) return this.#found(seen);
    this.#options.hub.publish({ type: "guest.state", guest: this.#unknown.foundSilent(seen) });
    return { ...seen, found: seen.found.then((found) => this.#found(found)) };
  }

  /** A guest that was found alive is one of this agent's again. */
  async admit(
    { record, process, qemu }: FoundGuest,
    { ownership, epoch, busyWith }: Admission,
  ): Promise<Guest> {
    assert(process !== null, "a guest without a QEMU is dropped");
    const running = qemu === "running";
    const guest = await this.#add({ ...record, epoch }, process, { running, ownership, busyWith });
    // What QEMU said between the look and now was heard by nobody.
    await guest.look();
    return guest;
  }

  /** The record of a guest that is gone. */
  async drop({ record }: FoundGuest): Promise<void> {
    await removeGuestRecord(join(this.guestsDir, record.definition.name));
  }

  /**
   * An admitted guest is ours: gives it its disks back, where an agent that stood between the two
   * has died. Rejects when that fails; then it waits for its next agent. A guest that is `suspect` is
   * not to be started.
   */
  async bringBack(guest: Guest): Promise<GivenBack> {
    const { imageDir, diskRecovery } = this.#options;
    const { qmp, definition } = guest;
    await acceptImages(definition.disks, imageDir);
    const given = (await diskRecovery?.giveBack({ ...this.#disksOf(guest), qmp })) ?? "nothing";
    if (given !== "given") return given;
    // Requests that failed while nobody served its disks were kept by QEMU, and are sent again.
    const { status } = await qmp.execute("query-status");
    if (status === "io-error") await qmp.execute("cont");
    return given;
  }

  /** Lets go of every guest; they run on. */
  async detach(): Promise<void> {
    this.#earlier.stop();
    await Promise.all(this.#guests.all().map((guest) => guest.process.detach()));
  }

  async #found(found: FoundGuest): Promise<FoundGuest> {
    this.#unknown.answered(found.record.definition.name);
    if (found.process === null) {
      await this.#options.diskRecovery?.forget(this.#disksOf(found.record));
    }
    return found;
  }

  #disksOf({
    definition,
    attachment,
  }: Pick<GuestRecord, "definition"> & {
    readonly attachment?: Attachment | null | undefined;
  }): EarlierDisks {
    const { imageDir } = this.#options;
    const { name, disks } = definition;
    const logger = this.#options.logger.child({ guest: name });
    const mirrored = (attachment ?? null) !== null;
    return { directory: this.#directoryOf({ definition }), disks, mirrored, imageDir, logger };
  }

  #directoryOf({ definition: { name } }: Pick<GuestRecord, "definition">): string {
    return join(this.guestsDir, name);
  }

  async #launch(
    launch: GuestLaunch,
    codes: RoomCodes,
    backing: GuestBacking | null = null,
  ): Promise<Guest> {
    const { definition, incoming } = launch;
    const { qemu, imageDir, diskRecovery } = this.#options;
    const state = {
      running: !incoming,
      ownership: incoming ? "incoming" : null,
      busyWith: null,
    } as const;
    this.#room.reserve(definition, codes);
    try {
      return await launchRecorded(launch, {
        ...{ qemu, imageDir, backing, directory: this.#directoryOf(launch) },
        beforeRecord: async (record) => diskRecovery?.forget(this.#disksOf(record)),
        admit: (record, process) => this.#add(record, process, state),
      });
    } finally {
      this.#room.release(definition.name);
    }
  }

  async #add(
    record: GuestRecord,
    process: GuestProcess,
    state: Omit<Admission, "epoch"> & { readonly running: boolean },
  ): Promise<Guest> {
    const { hub, imageDir } = this.#options;
    const diskSizes =
      record.attachment === undefined
        ? await diskSizesOf(record.definition.disks, imageDir)
        : new Map(Object.entries(record.attachment.diskBytes));
    const guest = new Guest({
      ...record,
      ...state,
      diskSizes,
      process,
      onChange: (changed) => {
        // A QEMU that was prepared is another guest once one arrives in it.
        if ((this.#guests.get(changed.name) ?? changed) !== changed) return;
        hub.publish({ type: "guest.state", guest: changed.object });
      },
    });
    guest.busyWith = state.busyWith;
    guest.qmp.onEvent(({ name, data }) => {
      if (name !== "BLOCK_IO_ERROR") return;
      this.#options.logger.warn({ guest: guest.name, error: data }, "a disk of the guest failed");
    });
    this.#guests.add(guest);
    hub.publish({ type: "guest.state", guest: guest.object });
    return guest;
  }

  #usedBytes(): number {
    const alive = this.#guests.all().filter((guest) => guest.alive);
    const knownBytes = alive.reduce((sum, { definition }) => sum + definition.memoryBytes, 0);
    return knownBytes + this.#unknown.memoryBytes;
  }

  async #accelerator(definition: GuestDefinition): Promise<Accelerator> {
    try {
      return chooseAccelerator(definition.accel, await probeKvmSupport());
    } catch (error) {
      throw launchProblem(error);
    }
  }

  /** Beneath it each guest has a directory of its name. */
  get guestsDir(): string {
    return join(this.#options.stateDir, "guests");
  }
}

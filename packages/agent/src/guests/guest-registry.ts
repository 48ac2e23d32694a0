/**
 * The guests of this host. It starts QEMU, keeps the record by which a restarted agent finds it
 * again, and guards the two things that must be unique: a name, and the host's memory.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Logger } from "pino";
import { assert, codeOf, messageOf } from "@vmferry/core";
import type { GuestDefinition, GuestObject, ProblemCode } from "@vmferry/protocol";
import {
  chooseAccelerator,
  GuestError,
  guestPaths,
  launchGuest,
  probeKvmSupport,
  type Accelerator,
  type DiskBacking,
  type GuestProcess,
  type QmpClient,
} from "@vmferry/qemu";
import { asProblemCode } from "../as-problem-code.ts";
import type { EventHub } from "../events/event-hub.ts";
import type { GuestService } from "../http/guest-service.ts";
import { ProblemError } from "../problem-error.ts";
import { diskSizesOf } from "./disk-sizes.ts";
import {
  EarlierGuests,
  isSilent,
  startedAs,
  type EarlierRecords,
  type FoundGuest,
  type SilentGuest,
} from "./earlier-guests.ts";
import { silentText } from "./silent-doubt.ts";
import { Guest, guestObject, type OwnershipState } from "./guest.ts";
import { acceptImages, refuseUnfitImages } from "./image-marks.ts";
import { removeGuestRecord, writeGuestRecord, type GuestRecord } from "./guest-record.ts";

/** QEMU itself, its threads and buffers, beside the guest's memory. */
const QEMU_OVERHEAD_BYTES = 64 * 1024 * 1024;
const LAUNCH_MS_MAX = 30_000;

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
}

/** A guest of an earlier life, as far as its disks are concerned. */
export interface EarlierDisks {
  /** The guest's own. */
  readonly directory: string;
  readonly disks: GuestDefinition["disks"];
  readonly imageDir: string;
  readonly logger: Logger;
}

export interface DiskRecoveryPort {
  /**
   * What was exported is again, as it is written down beside the guest: its QEMU may wait for that
   * before it answers anything. Never rejects.
   */
  reopen(guest: EarlierDisks): Promise<void>;
  /**
   * The guest gets its disks back; false where there was nothing to give. What was reopened stays
   * until that has succeeded, so that it may be tried again.
   */
  giveBack(guest: EarlierDisks & { readonly qmp: QmpClient }): Promise<boolean>;
  /** The guest's QEMU is gone. */
  forget(guest: EarlierDisks): Promise<void>;
}

/** What is known of a guest of an earlier life. */
export interface Admission {
  readonly ownership: OwnershipState | null;
  readonly epoch: number;
  /** The migration that is still at work on it, before anybody can begin another. */
  readonly busyWith: string | null;
}

/** Disks of a guest that stand on something else than their image. */
export interface GuestBacking {
  /** By their ids; `directory` is the guest's own. */
  readonly disks: (directory: string) => ReadonlyMap<string, DiskBacking>;
  /** Called last before QEMU is started: nobody else has the directory. */
  readonly open: (directory: string) => Promise<void>;
}

interface Launch {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly uuid: string;
  readonly epoch: number;
  readonly incoming: boolean;
}

export class GuestRegistry implements GuestService {
  readonly #options: GuestRegistryOptions;
  readonly #guests = new Map<string, Guest>();
  /** Names whose QEMU is being started, with their memory. */
  readonly #starting = new Map<string, number>();
  readonly #earlier: EarlierGuests;
  /** Of an earlier life, by their names; nothing is known of them before QEMU answers. */
  readonly #silent = new Map<string, SilentGuest>();

  constructor(options: GuestRegistryOptions) {
    this.#options = options;
    this.#earlier = new EarlierGuests(this.guestsDir, options.logger, options.lookMsMax);
  }

  list(): readonly GuestObject[] {
    return [
      ...[...this.#guests.values()].map((guest) => guest.object),
      ...[...this.#silent.values()].map((silent) => this.#silentObject(silent)),
    ];
  }

  get(name: string): GuestObject {
    const silent = this.#silent.get(name);
    return silent === undefined ? this.find(name).object : this.#silentObject(silent);
  }

  /** Throws `guest-not-found`, and `guest-in-doubt` for one whose QEMU does not answer. */
  find(name: string): Guest {
    const guest = this.#guests.get(name);
    if (guest !== undefined) return guest;
    const silent = this.#silent.get(name);
    if (silent !== undefined)
      throw new ProblemError(silentText(silent), { code: "guest-in-doubt" });
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

  /** A QEMU that stands still and waits for a migration. */
  async launchIncoming(
    launch: Omit<Launch, "incoming">,
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
    return this.#starting.has(name) || state === "incoming" || state === "in-doubt";
  }

  /** Throws `code` where a guest of that name is here. */
  refuseName(name: string, code: ProblemCode): void {
    const present = this.#guests.get(name);
    const isPresent = (present !== undefined && present.alive) || this.#silent.has(name);
    if (!this.#starting.has(name) && !isPresent) return;
    throw new ProblemError(`There is a guest ${name} on this host.`, { code });
  }

  /** Throws `code` where there is not the memory for it. */
  refuseMemory(
    { name, memoryBytes }: Pick<GuestDefinition, "name" | "memoryBytes">,
    code: ProblemCode,
  ): void {
    const free = this.#freeBytes();
    if (memoryBytes + QEMU_OVERHEAD_BYTES <= free) return;
    throw new ProblemError(
      `Guest ${name} needs ${memoryBytes + QEMU_OVERHEAD_BYTES} bytes of memory with its QEMU; ` +
        `this host has ${Math.max(0, free)} for guests.`,
      { code },
    );
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
      await guest.quit();
    }
    await this.forget(guest);
    return guest.object;
  }

  /** What arrived is owned here, in `epoch`; resolves when a restarted agent would see it. */
  async keep(guest: Guest, epoch: number): Promise<void> {
    const { definition, accel, uuid, qemuVersion, process } = guest;
    const { identity, paths } = process;
    const stage = "owned";
    const record = { definition, accel, uuid, qemuVersion, epoch, stage, identity } as const;
    await writeGuestRecord(paths.directory, record);
  }

  /** The guest's QEMU is gone and nobody asks for it again. */
  async forget(guest: Guest): Promise<void> {
    if (this.#guests.get(guest.name) === guest) this.#guests.delete(guest.name);
    await removeGuestRecord(guest.process.paths.directory);
  }

  /** The guests that an earlier life of this agent started. */
  findEarlier(): Promise<EarlierRecords> {
    return this.#earlier.records();
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
    const { name } = record.definition;
    this.#silent.set(name, seen);
    this.#options.hub.publish({ type: "guest.state", guest: this.#silentObject(seen) });
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
   * has died. Rejects when that fails; then it waits for its next agent.
   */
  async bringBack({ qmp, definition }: Guest): Promise<void> {
    const { imageDir, diskRecovery } = this.#options;
    await acceptImages(definition.disks, imageDir);
    if ((await diskRecovery?.giveBack({ ...this.#disksOf({ definition }), qmp })) !== true) return;
    // Requests that failed while nobody served its disks were kept by QEMU, and are sent again.
    const { status } = await qmp.execute("query-status");
    if (status === "io-error") await qmp.execute("cont");
  }

  /** Lets go of every guest; they run on. */
  async detach(): Promise<void> {
    this.#earlier.stop();
    await Promise.all([...this.#guests.values()].map((guest) => guest.process.detach()));
  }

  async #found(found: FoundGuest): Promise<FoundGuest> {
    this.#silent.delete(found.record.definition.name);
    if (found.process === null) {
      await this.#options.diskRecovery?.forget(this.#disksOf(found.record));
    }
    return found;
  }

  #silentObject({ record, pid }: SilentGuest): GuestObject {
    const { serialLog } = guestPaths(this.#directoryOf(record));
    const diskSizes = new Map<string, number>();
    return guestObject(record, { state: "in-doubt", pid, serialLog, diskSizes });
  }

  #disksOf({ definition }: Pick<GuestRecord, "definition">): EarlierDisks {
    const { imageDir } = this.#options;
    const { name, disks } = definition;
    const logger = this.#options.logger.child({ guest: name });
    return { directory: this.#directoryOf({ definition }), disks, imageDir, logger };
  }

  #directoryOf({ definition: { name } }: Pick<GuestRecord, "definition">): string {
    return join(this.guestsDir, name);
  }

  async #launch(
    launch: Launch,
    codes: { readonly exists: ProblemCode; readonly memory: ProblemCode },
    backing: GuestBacking | null = null,
  ): Promise<Guest> {
    const { definition, accel, uuid } = launch;
    const { name } = definition;
    this.#reserve(definition, codes);
    const directory = join(this.guestsDir, name);
    const ownership = launch.incoming ? "incoming" : null;
    const record = {
      ...launch,
      stage: ownership ?? "owned",
      qemuVersion: "",
      identity: null,
    } as const;
    const written = { isThere: false };
    let process: GuestProcess | null = null;
    try {
      if (!launch.incoming) await refuseUnfitImages(definition.disks, this.#options.imageDir);
      process = await launchGuest({
        binary: this.#options.qemu,
        definition: { ...definition, accel, uuid },
        directory,
        imageDirectory: this.#options.imageDir,
        incoming: launch.incoming,
        ...(backing === null ? {} : { diskBackings: backing.disks(directory) }),
        timeoutMs: LAUNCH_MS_MAX,
        beforeStart: async () => {
          await this.#options.diskRecovery?.forget(this.#disksOf(record));
          written.isThere = true;
          await writeGuestRecord(directory, record);
          await backing?.open(directory);
        },
      });
      const started = { ...record, ...startedAs(process) };
      await writeGuestRecord(directory, started);
      return await this.#add(started, process, {
        ...{ running: !launch.incoming, ownership, busyWith: null },
      });
    } catch (error) {
      // What nobody could find again must not run.
      await process?.kill();
      if (written.isThere) await removeGuestRecord(directory);
      throw launchProblem(error);
    } finally {
      this.#starting.delete(name);
    }
  }

  async #add(
    record: GuestRecord,
    process: GuestProcess,
    state: Omit<Admission, "epoch"> & { readonly running: boolean },
  ): Promise<Guest> {
    const { hub, imageDir } = this.#options;
    const diskSizes = await diskSizesOf(record.definition.disks, imageDir);
    const guest = new Guest({
      ...record,
      ...state,
      diskSizes,
      process,
      onChange: ({ object }) => {
        hub.publish({ type: "guest.state", guest: object });
      },
    });
    guest.busyWith = state.busyWith;
    guest.qmp.onEvent(({ name, data }) => {
      if (name !== "BLOCK_IO_ERROR") return;
      this.#options.logger.warn({ guest: guest.name, error: data }, "a disk of the guest failed");
    });
    this.#guests.set(guest.name, guest);
    hub.publish({ type: "guest.state", guest: guest.object });
    return guest;
  }

  #reserve(
    { name, memoryBytes }: GuestDefinition,
    codes: { readonly exists: ProblemCode; readonly memory: ProblemCode },
  ): void {
    this.refuseName(name, codes.exists);
    this.refuseMemory({ name, memoryBytes }, codes.memory);
    this.#starting.set(name, memoryBytes);
  }

  #freeBytes(): number {
    const { guestMemoryBytesMax } = this.#options;
    const starting = [...this.#starting.values()].reduce((sum, bytes) => sum + bytes, 0);
    const free = process.availableMemory() - starting;
    if (guestMemoryBytesMax === null) return free;
    const alive = [...this.#guests.values()].filter((guest) => guest.alive);
    const silent = [...this.#silent.values()].map(({ record }) => record);
    const used = [...alive, ...silent].reduce(
      (sum, { definition }) => sum + definition.memoryBytes,
      0,
    );
    return Math.min(free, guestMemoryBytesMax - used - starting);
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

/** QEMU's reasons, with the code that the API has for them. */
function launchProblem(error: unknown): unknown {
  const code = codeOf(error);
  if (error instanceof ProblemError || code === null) return error;
  const known = isUnknownMachine(error) ? "machine-type-unsupported" : code;
  const problem = { code: asProblemCode(known, "guest-start-failed") };
  return new ProblemError(messageOf(error), problem, { cause: error });
}

function isUnknownMachine(error: unknown): boolean {
  if (!(error instanceof GuestError) || error.detail.code !== "qemu-exited") return false;
  return error.detail.lastLines.some((line) => line.includes("unsupported machine type"));
}

/**
 * The guests of this host. It starts QEMU, keeps the record by which a restarted agent finds it
 * again, and guards the two things that must be unique: a name, and the host's memory.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { assert, codeOf, messageOf } from "@vmferry/core";
import {
  seenQemu,
  type GuestDefinition,
  type GuestObject,
  type ProblemCode,
  type SeenQemu,
} from "@vmferry/protocol";
import {
  adoptGuest,
  chooseAccelerator,
  findGuest,
  formatQemuVersion,
  GuestError,
  guestPaths,
  launchGuest,
  probeKvmSupport,
  type Accelerator,
  type GuestProcess,
  type QmpClient,
} from "@vmferry/qemu";
import { asProblemCode } from "../as-problem-code.ts";
import type { EventHub } from "../events/event-hub.ts";
import type { GuestService } from "../http/guest-service.ts";
import { ProblemError } from "../problem-error.ts";
import { diskSizesOf } from "./disk-sizes.ts";
import { Guest, type OwnershipState } from "./guest.ts";
import { acceptImages, refuseUnfitImages } from "./image-marks.ts";
import {
  readGuestRecord,
  removeGuestRecord,
  writeGuestRecord,
  type GuestRecord,
} from "./guest-record.ts";

/** QEMU itself, its threads and buffers, beside the guest's memory. */
const QEMU_OVERHEAD_BYTES = 64 * 1024 * 1024;
const LAUNCH_MS_MAX = 30_000;
const ADOPT_MS_MAX = 5000;
const ADOPT_AGAIN_MS = 200;
const ADOPT_ATTEMPTS_MAX = 12;

export interface GuestRegistryOptions {
  readonly qemu: string;
  readonly stateDir: string;
  readonly imageDir: string;
  /** What all guests together may have; null = what the host has free. */
  readonly guestMemoryBytesMax: number | null;
  readonly hub: EventHub;
  readonly logger: Logger;
  /**
   * Gives disks back to a guest whose agent died while it stood between the two; false where there
   * was nothing to give back.
   */
  readonly recoverDisks?: (guest: AdoptedDisks) => Promise<boolean>;
}

/** A guest that was found again, as far as its disks are concerned. */
export interface AdoptedDisks {
  readonly qmp: QmpClient;
  readonly disks: GuestDefinition["disks"];
  readonly imageDir: string;
  readonly logger: Logger;
}

/** A guest that an earlier life of this agent has written down. */
export interface FoundGuest {
  readonly record: GuestRecord;
  /** Null when its QEMU is gone. */
  readonly process: GuestProcess | null;
  readonly qemu: SeenQemu;
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

  constructor(options: GuestRegistryOptions) {
    this.#options = options;
  }

  list(): readonly GuestObject[] {
    return [...this.#guests.values()].map((guest) => guest.object);
  }

  get(name: string): GuestObject {
    return this.find(name).object;
  }

  /** Throws `guest-not-found`. */
  find(name: string): Guest {
    const guest = this.#guests.get(name);
    if (guest !== undefined) return guest;
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
  async launchIncoming(launch: Omit<Launch, "incoming">): Promise<Guest> {
    return this.#launch(
      { ...launch, incoming: true },
      { exists: "dest-guest-exists", memory: "dest-memory-insufficient" },
    );
  }

  async powerOff(name: string): Promise<GuestObject> {
    const guest = this.find(name);
    if (guest.busyWith !== null) {
      throw new ProblemError(`Guest ${name} is being migrated (${guest.busyWith}).`, {
        code: "guest-busy",
      });
    }
    if (guest.alive) await guest.quit();
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

  /**
   * The guests that an earlier life of this agent started. Whose they are is the caller's to say: it
   * admits each of them, or drops it.
   */
  async findEarlier(): Promise<FoundGuest[]> {
    const root = this.guestsDir;
    await mkdir(root, { recursive: true, mode: 0o700 });
    const found = (await readdir(root)).map(async (entry) => {
      const record = await readGuestRecord(join(root, entry));
      return record === null ? null : this.#look(record);
    });
    return (await Promise.all(found)).filter((one) => one !== null);
  }

  /** A guest that was found alive is one of this agent's again. */
  async admit(
    { record, process, qemu }: FoundGuest,
    { ownership, epoch }: { readonly ownership: OwnershipState | null; readonly epoch: number },
  ): Promise<Guest> {
    assert(process !== null, "a guest without a QEMU is dropped");
    const running = qemu === "running";
    const guest = await this.#add({ ...record, epoch }, process, { running, ownership });
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
  async bringBack({ qmp, definition: { name, disks } }: Guest): Promise<void> {
    const { imageDir, recoverDisks } = this.#options;
    const logger = this.#options.logger.child({ guest: name });
    await acceptImages(disks, imageDir);
    if ((await recoverDisks?.({ qmp, disks, imageDir, logger })) !== true) return;
    // Requests that failed while nobody served its disks were kept by QEMU, and are sent again.
    const { status } = await qmp.execute("query-status");
    if (status === "io-error") await qmp.execute("cont");
  }

  /** Lets go of every guest; they run on. */
  async detach(): Promise<void> {
    await Promise.all([...this.#guests.values()].map((guest) => guest.process.detach()));
  }

  /**
   * A QEMU that lives and does not answer is waited for: it is not gone. Null when it takes too
   * long; then nothing is done with the guest.
   */
  async #look(record: GuestRecord): Promise<FoundGuest | null> {
    const { name } = record.definition;
    const directory = join(this.guestsDir, name);
    const logger = this.#options.logger.child({ guest: name });
    for (let attempt = 1; attempt <= ADOPT_ATTEMPTS_MAX; attempt++) {
      let process: GuestProcess | null = null;
      try {
        const identity = record.identity ?? findGuest(guestPaths(directory).qmpSocket);
        if (identity === null) {
          logger.info("the QEMU of a guest of an earlier life was never started, or is gone");
          return { record, process: null, qemu: "gone" };
        }
        process = await adoptGuest({ ...identity, timeoutMs: ADOPT_MS_MAX });
        const status = await process.qmp.execute("query-status");
        const qemu = seenQemu(status);
        logger.info({ pid: process.pid, status: status.status }, "a guest of an earlier life");
        const found = { ...record, ...startedAs(process) };
        if (record.identity === null) await writeGuestRecord(directory, found);
        return { record: found, process, qemu };
      } catch (error) {
        // QEMU serves one connection: the next attempt needs it.
        await process?.detach();
        const reason = messageOf(error);
        if (isGone(error)) {
          logger.info({ reason }, "a guest of an earlier life is gone");
          return { record, process: null, qemu: "gone" };
        }
        logger.warn({ reason, attempt }, "the guest's QEMU does not answer yet");
        await sleep(ADOPT_AGAIN_MS);
      }
    }
    logger.error("the guest's QEMU does not answer: look at it, and start this agent again");
    return null;
  }

  async #launch(
    launch: Launch,
    codes: { readonly exists: ProblemCode; readonly memory: ProblemCode },
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
        timeoutMs: LAUNCH_MS_MAX,
        beforeStart: async () => {
          written.isThere = true;
          await writeGuestRecord(directory, record);
        },
      });
      const started = { ...record, ...startedAs(process) };
      await writeGuestRecord(directory, started);
      return await this.#add(started, process, { running: !launch.incoming, ownership });
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
    state: { readonly running: boolean; readonly ownership: OwnershipState | null },
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
    guest.qmp.onEvent(({ name, data }) => {
      if (name !== "BLOCK_IO_ERROR") return;
      this.#options.logger.warn({ guest: guest.name, error: data }, "a disk of the guest failed");
    });
    this.#guests.set(guest.name, guest);
    hub.publish({ type: "guest.state", guest: guest.object });
    return guest;
  }

  /** Throws when the name is taken or the memory is not there. */
  #reserve(
    { name, memoryBytes }: GuestDefinition,
    codes: { readonly exists: ProblemCode; readonly memory: ProblemCode },
  ): void {
    const present = this.#guests.get(name);
    if (this.#starting.has(name) || (present !== undefined && present.alive)) {
      throw new ProblemError(`There is a guest ${name} on this host.`, { code: codes.exists });
    }
    const free = this.#freeBytes();
    if (memoryBytes + QEMU_OVERHEAD_BYTES > free) {
      throw new ProblemError(
        `Guest ${name} needs ${memoryBytes + QEMU_OVERHEAD_BYTES} bytes of memory with its QEMU; ` +
          `this host has ${Math.max(0, free)} for guests.`,
        { code: codes.memory },
      );
    }
    this.#starting.set(name, memoryBytes);
  }

  #freeBytes(): number {
    const { guestMemoryBytesMax } = this.#options;
    const starting = [...this.#starting.values()].reduce((sum, bytes) => sum + bytes, 0);
    const free = process.availableMemory() - starting;
    if (guestMemoryBytesMax === null) return free;
    const used = [...this.#guests.values()]
      .filter((guest) => guest.alive)
      .reduce((sum, guest) => sum + guest.definition.memoryBytes, 0);
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

/** What is known of a guest when its QEMU answers. */
function startedAs(process: GuestProcess): Pick<GuestRecord, "identity" | "qemuVersion"> {
  return { identity: process.identity, qemuVersion: formatQemuVersion(process.qemuVersion) };
}

function isGone(error: unknown): boolean {
  const code = codeOf(error);
  return code === "guest-gone" || code === "guest-not-this-qemu";
}

function isUnknownMachine(error: unknown): boolean {
  if (!(error instanceof GuestError) || error.detail.code !== "qemu-exited") return false;
  return error.detail.lastLines.some((line) => line.includes("unsupported machine type"));
}

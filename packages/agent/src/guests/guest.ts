/** One guest on this host: its QEMU process, and what may be said about who owns it. */
import { assert } from "@vmferry/core";
import type { GuestDefinition, GuestObject, GuestState } from "@vmferry/protocol";
import type { Accelerator, GuestProcess, QmpClient } from "@vmferry/qemu";
import type { Attachment } from "./attach-guest.ts";

/** Where ownership says more than QEMU's run state can. */
export type OwnershipState = "incoming" | "handed-off" | "in-doubt";

export interface GuestOptions {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly uuid: string;
  readonly qemuVersion: string;
  readonly epoch: number;
  readonly process: GuestProcess;
  readonly ownership: OwnershipState | null;
  readonly running: boolean;
  /** By the disk's id, as far as they are known. */
  readonly diskSizes: ReadonlyMap<string, number>;
  /** Of a guest whose QEMU somebody else started. */
  readonly attachment?: Attachment | undefined;
  /** Called after every change that `object` shows. */
  readonly onChange: (guest: Guest) => void;
}

const QUIT_MS_MAX = 10_000;

/** As the API shows a guest, also one without a process to ask. */
export function guestObject(
  guest: Pick<Guest, "definition" | "accel" | "qemuVersion" | "epoch"> & {
    readonly attachment?: Attachment | null | undefined;
  },
  seen: Pick<GuestObject, "state" | "pid" | "serialLog"> & {
    readonly diskSizes: ReadonlyMap<string, number>;
  },
): GuestObject {
  const { definition, accel, qemuVersion, epoch } = guest;
  const { name, machine, cpu, vcpus, memoryBytes, disks } = definition;
  const { state, pid, diskSizes } = seen;
  const attached = attachedObject(guest.attachment ?? null, state);
  // Where the console of such a guest goes is not for the agent to know.
  const serialLog = attached === null ? seen.serialLog : null;
  return {
    ...{ name, state, epoch, pid, qemuVersion, serialLog },
    ...{ machine, accel, cpu, vcpus, memoryBytes, attached },
    disks: disks.map((disk) => ({ ...disk, sizeBytes: diskSizes.get(disk.id) ?? null })),
  };
}

/** A monitor that was attached to takes no commands while QEMU waits for a page. */
const NO_STANDBY =
  "the agent did not start this QEMU, and has no second way to it while it waits for a page";

function attachedObject(attachment: Attachment | null, state: GuestState): GuestObject["attached"] {
  if (attachment === null) return null;
  const { qmp, launchRefusal } = attachment;
  return { qmp, launchRefusal, postCopyRefusal: state === "incoming" ? NO_STANDBY : "" };
}

export class Guest {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly uuid: string;
  readonly qemuVersion: string;
  readonly process: GuestProcess;
  /** Null for a guest whose QEMU an agent started. */
  readonly attachment: Attachment | null;
  /** The migration that is at work on this guest. */
  busyWith: string | null = null;
  readonly #onChange: (guest: Guest) => void;
  readonly #diskSizes: ReadonlyMap<string, number>;
  #epoch: number;
  #ownership: OwnershipState | null;
  #running: boolean;
  #exited = false;

  constructor(options: GuestOptions) {
    this.definition = options.definition;
    this.accel = options.accel;
    this.uuid = options.uuid;
    this.qemuVersion = options.qemuVersion;
    this.process = options.process;
    this.attachment = options.attachment ?? null;
    this.#epoch = options.epoch;
    this.#ownership = options.ownership;
    this.#running = options.running;
    this.#onChange = options.onChange;
    this.#diskSizes = options.diskSizes;
    this.qmp.onEvent(({ name }) => {
      if (name === "STOP") this.#ran(false);
      if (name === "RESUME") this.#ran(true);
    });
    void this.process.exited.then(() => {
      this.#exited = true;
      this.#onChange(this);
    });
  }

  get name(): string {
    return this.definition.name;
  }

  get qmp(): QmpClient {
    return this.process.qmp;
  }

  /** Its QEMU has ended; never rejects. */
  get exited(): Promise<unknown> {
    return this.process.exited;
  }

  get epoch(): number {
    return this.#epoch;
  }

  get alive(): boolean {
    return !this.#exited;
  }

  /** Its QEMU waits for a guest that nobody has offered yet, which no epoch is about. */
  get isPrepared(): boolean {
    return this.attachment !== null && this.state === "incoming" && this.#epoch === 0;
  }

  get state(): GuestState {
    if (this.#ownership === "handed-off" || this.#ownership === "in-doubt") return this.#ownership;
    if (this.#exited) return "stopped";
    return this.#ownership ?? (this.#running ? "running" : "paused");
  }

  get object(): GuestObject {
    return guestObject(this, {
      state: this.state,
      pid: this.#exited ? null : this.process.pid,
      serialLog: this.process.paths.serialLog,
      diskSizes: this.#diskSizes,
    });
  }

  /** Asks QEMU whether it runs; its events tell from then on, and its end where it is dead. */
  async look(): Promise<void> {
    const status = await this.qmp.execute("query-status").catch(() => null);
    if (status !== null) this.#ran(status.running);
  }

  /** The guest is owned here, in `epoch`. */
  owned(epoch: number): void {
    if (this.#epoch === epoch && this.#ownership === null) return;
    this.#epoch = epoch;
    this.#ownership = null;
    this.#onChange(this);
  }

  handedOff(): void {
    this.#setOwnership("handed-off");
  }

  inDoubt(): void {
    this.#setOwnership("in-doubt");
  }

  async quit(): Promise<void> {
    await this.process.quit({ timeoutMs: QUIT_MS_MAX });
  }

  /**
   * Only for a guest that was handed over: QEMU gave up its disks before, so nothing is left to
   * flush, and one whose disks lost their agent would try to for minutes.
   */
  async end(): Promise<void> {
    const isGiven = this.#ownership === "handed-off" || this.#ownership === "in-doubt";
    assert(isGiven, "only a guest that was handed over is ended without asking");
    await this.process.kill();
  }

  /** Only for a guest that never ran here. */
  async kill(): Promise<void> {
    assert(this.#ownership === "incoming", "only a guest that never ran here is killed");
    await this.process.kill();
  }

  #setOwnership(ownership: OwnershipState | null): void {
    if (this.#ownership === ownership) return;
    this.#ownership = ownership;
    this.#onChange(this);
  }

  #ran(running: boolean): void {
    if (this.#running === running) return;
    this.#running = running;
    this.#onChange(this);
  }
}

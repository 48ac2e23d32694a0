// A demo guest with a name of its own that end-to-end and fault tests send from source to dest.

import { join } from "node:path";
import { assert } from "@vmferry/core";
import type { GuestObject, MigrationObject, MigrationPhase } from "@vmferry/protocol";
import {
  ApiProblem,
  type GuestConsole,
  type GuestDisks,
  type HandOverVerdict,
  judgeHandOver,
  type Lab,
  qemusUnder,
} from "@vmferry/testkit";

const MIB = 1024 * 1024;
const BOOT_MS_MAX = 120_000;
const VERIFY_MS_MAX = 60_000;
const HAND_OVER_MS_MAX = 30_000;
const POLL_MS = 10;

export interface MovingGuestOptions {
  readonly machine?: string;
  readonly memoryMib?: number;
  readonly vcpus?: number;
  /** Parameters of the workload: `{ mem: "64M", rate: "2000" }`. */
  readonly workload?: Readonly<Record<string, string>>;
  /** Of images that `lab.makeDisk` has made; the workload works on the first of them. */
  readonly disks?: GuestDisks;
}

/** A guest whose QEMU no agent has started, on one side or on both. */
export interface AttachedGuest {
  readonly name: string;
  readonly source: GuestConsole;
  /** By which its QEMU is known among others. */
  readonly sourceDirectory: string;
  /** Where a QEMU was prepared for it. */
  readonly dest?: { readonly directory: string; readonly serialLog: string };
}

/** The body of a migration request without the guest; it goes to the dest by default. */
export type MoveOptions = Readonly<Record<string, unknown>>;

let booted = 0;

export class MovingGuest {
  readonly lab: Lab;
  readonly name: string;
  readonly source: GuestConsole;

  readonly #attached: AttachedGuest | null;

  private constructor(
    lab: Lab,
    { name, source }: { readonly name: string; readonly source: GuestConsole },
    attached: AttachedGuest | null = null,
  ) {
    this.lab = lab;
    this.name = name;
    this.source = source;
    this.#attached = attached;
  }

  /** Resolves when its workload works. */
  static async attached(lab: Lab, guest: AttachedGuest): Promise<MovingGuest> {
    await guest.source.waitFor(isWorking, { timeoutMs: BOOT_MS_MAX });
    return new MovingGuest(lab, guest, guest);
  }

  /** Resolves when the workload works. */
  static async boot(lab: Lab, options: MovingGuestOptions = {}): Promise<MovingGuest> {
    const { machine = "pc-q35-10.0", memoryMib = 128, vcpus = 1, disks = [] } = options;
    const name = `guest${++booted}`;
    const parameters = Object.entries({ mem: "32M", ...options.workload });
    const { serialLog } = await lab.source.api.startGuest({
      name,
      machine,
      vcpus,
      memoryBytes: memoryMib * MIB,
      boot: {
        kernel: "vmlinuz",
        initrd: "initrd.img",
        cmdline: [
          "console=ttyS0 quiet panic=-1",
          ...parameters.map(([key, value]) => `vmferry.${key}=${value}`),
        ].join(" "),
      },
      disks,
    });
    assert(serialLog !== null, "a guest of an agent has a console");
    const source = lab.follow(serialLog);
    await source.waitFor(isWorking, { timeoutMs: BOOT_MS_MAX });
    return new MovingGuest(lab, { name, source });
  }

  /** Starts a migration and returns its id. */
  async migrate(options: MoveOptions = {}): Promise<string> {
    const request = { guest: this.name, destination: "dest", ...options };
    const { id } = await this.lab.source.api.migrate(request);
    return id;
  }

  /** Resolves when the source says that the migration is in this phase; throws when it is over. */
  async inPhase(id: string, phase: MigrationPhase, timeoutMs = 60_000): Promise<MigrationObject> {
    return this.until(id, (migration) => migration.phase === phase, timeoutMs);
  }

  /** Polls the migration at the source until it is as wanted; throws when it ends otherwise. */
  async until(
    id: string,
    wanted: (migration: MigrationObject) => boolean,
    timeoutMs = 60_000,
  ): Promise<MigrationObject> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const migration = await this.lab.source.api.migration(id);
      if (wanted(migration)) return migration;
      const over = ["completed", "failed", "cancelled"].includes(migration.phase);
      if (over || performance.now() > deadlineMs) {
        throw new Error(`the migration is ${JSON.stringify(migration)}`);
      }
      await pause(POLL_MS);
    }
  }

  /**
   * From now on; null = none. Nothing happens where the migration is over by now, and while the
   * source waits for the dest's answer to the hand-over, which takes no limits, it is asked again.
   */
  async limitBandwidth(id: string, bandwidthBytesPerSecond: number | null): Promise<void> {
    const body = { limits: { bandwidthBytesPerSecond } };
    const deadlineMs = performance.now() + HAND_OVER_MS_MAX;
    for (;;) {
      try {
        await this.lab.source.api.request("PATCH", `/v1/migrations/${id}`, body);
        return;
      } catch (error) {
        const code = error instanceof ApiProblem ? error.code : null;
        if (code === "migration-ended") return;
        if (code !== "past-hand-over" || performance.now() > deadlineMs) throw error;
        await pause(POLL_MS);
      }
    }
  }

  atSource(): Promise<GuestObject> {
    return this.lab.source.api.guest(this.name);
  }

  atDest(): Promise<GuestObject> {
    return this.lab.dest.api.guest(this.name);
  }

  /** Of this guest, by the process table: neither agent is asked. */
  qemus(side: "source" | "dest"): readonly number[] {
    const attached =
      side === "source" ? this.#attached?.sourceDirectory : this.#attached?.dest?.directory;
    if (attached !== undefined) return qemusUnder(attached);
    const state = side === "source" ? "s" : "d";
    return qemusUnder(join(this.lab.directory, state, "guests", this.name));
  }

  /** Whether its workload works on a disk, too. */
  get usesDisk(): boolean {
    return Number(this.source.ready?.get("diskslots")) > 0;
  }

  /** Two more sweeps over all of its memory and disk at the dest; then both consoles are judged. */
  async verifyAtDest(timeoutMs = VERIFY_MS_MAX): Promise<HandOverVerdict> {
    const serialLog = this.#attached?.dest?.serialLog ?? this.lab.destSerialLog(this.name);
    const dest = this.lab.follow(serialLog);
    const isChecked = ({ reports, latestReport, errors }: GuestConsole): boolean => {
      const [first] = reports;
      if (errors.length > 0) return true; // the verdict tells of it
      if (first === undefined || latestReport === null) return false;
      const sweeps = latestReport.sweeps - first.sweeps;
      const diskSweeps = latestReport.diskSweeps - first.diskSweeps;
      return sweeps >= 2 && (!this.usesDisk || diskSweeps >= 2);
    };
    await dest.waitFor(isChecked, { timeoutMs });
    const verdict = judgeHandOver({ sourceLines: this.source.lines, destLines: dest.lines });
    dest.close();
    return verdict;
  }

  /** Powers it off wherever it is; the consoles are not followed any more. */
  async end(): Promise<void> {
    this.source.close();
    for (const agent of [this.lab.source, this.lab.dest]) {
      await agent.api.powerOff(this.name).catch(() => undefined);
    }
    for (const pid of [...this.qemus("source"), ...this.qemus("dest")]) {
      process.kill(pid, "SIGKILL");
    }
  }
}

/** Throws when the workload says that it cannot begin. */
function isWorking({ ready, latestReport, errors }: GuestConsole): boolean {
  if (errors.length > 0) throw new Error(`the guest does not work: ${errors.join("; ")}`);
  return ready !== null && latestReport !== null;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/**
 * A host: what outlives the agents on it. The QEMU, the disk, the guest's record and the journal are
 * there when the next agent is started; a crash of the host takes QEMU and what was not synced.
 */
import { AgentError } from "@vmferry/core";
import type { GuestProcess } from "@vmferry/qemu";
import {
  Guest,
  type Admission,
  type FoundGuest,
  type GuestRegistry,
  type WitnessPort,
  type GivenBack,
} from "../../packages/agent/src/index.ts";
import { seenQemu, type MigrationRole } from "@vmferry/protocol";
import { JournalDisk } from "./journals.ts";
import { Life, type Side } from "./life.ts";
import type { Machine } from "./machine.ts";
import { processOf } from "./monitor.ts";
import { definition, GUEST_UUID, type Setting } from "./setting.ts";

export const QEMU_VERSION = "7.2.22";
const START_AGAIN_MS: readonly [number, number] = [500, 5000];

type GuestRecord = FoundGuest["record"];

/** An agent that runs. */
export interface Agent {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Of what it can be asked to end, nothing is left. */
  readonly isIdle: boolean;
}

export abstract class Host<M extends Machine> {
  readonly side: Side;
  readonly setting: Setting;
  readonly journal: JournalDisk;
  machine: M | null = null;
  record: GuestRecord | null = null;
  life: Life | null = null;
  isUp = true;
  /** So many of the next SIGKILLs end nothing. */
  survivals = 0;

  constructor(setting: Setting, side: Side & MigrationRole) {
    this.setting = setting;
    this.side = side;
    this.journal = new JournalDisk(setting, side);
  }

  /** The agent of the present life. */
  abstract readonly agent: Agent | null;

  boot(): void {
    if (this.life !== null) return;
    const { scheduler, onPort, trace, network } = this.setting;
    this.isUp = true;
    network.hostUp(this.side);
    const life = new Life({ side: this.side, scheduler, onPort });
    this.life = life;
    trace.note(`${this.side} agent starts`);
    this.launch(life).catch((error: unknown) => {
      this.#failedToStart(error);
    });
  }

  /** SIGKILL. */
  killAgent(why: string): void {
    const { life } = this;
    if (life === null) return;
    this.setting.trace.note(`${this.side} agent dies: ${why}`);
    this.life = null;
    life.die();
    this.journal.agentDied();
  }

  /** Power is off. */
  crash(): void {
    const { network, trace, random } = this.setting;
    if (!this.isUp) return;
    trace.note(`${this.side} host crashes`);
    this.isUp = false;
    network.hostDown(this.side);
    this.killAgent("its host crashes");
    this.machine?.kill("its host crashes");
    this.journal.hostCrashed();
    // It may not have reached the disk yet.
    if (this.record?.stage === "incoming" && random.chance(0.5)) this.record = null;
  }

  openWitness(life: Life): WitnessPort | null {
    return this.setting.share?.witnessOf(life) ?? null;
  }

  /** What the agents have of this host's guests. */
  registryOf(life: Life, admitted: (guest: Guest) => void): GuestRegistry {
    const registry = {
      findEarlier: async () => {
        await life.sleep(this.setting.random.spread(0.1, 20));
        const { record } = this;
        return { records: record === null ? [] : [record], unreadable: [] };
      },
      reopenDisks: () => Promise.resolve(),
      look: (record: GuestRecord) => this.#look(life, record),
      admit: ({ record, process, qemu }: FoundGuest, known: Admission) => {
        if (process === null) throw new Error("a guest without a QEMU is dropped");
        const guest = this.guestOf({ ...record, epoch: known.epoch }, process, {
          running: qemu === "running",
          ownership: known.ownership,
        });
        guest.busyWith = known.busyWith;
        admitted(guest);
        return guest.look().then(() => guest);
      },
      drop: () => this.#forget(life),
      forget: () => this.#forget(life),
      keep: async (_guest: Guest, epoch: number) => {
        await life.sleep(this.setting.random.spread(0.05, 2));
        if (!life.port(`${this.side} record keep`)) return;
        if (this.record !== null) this.record = { ...this.record, epoch, stage: "owned" };
      },
      bringBack: (guest: Guest) => this.bringBack(life, guest),
    };
    return registry as unknown as GuestRegistry;
  }

  guestOf(record: GuestRecord, process: GuestProcess, state: GuestState): Guest {
    const onChange = (): void => undefined;
    return new Guest({ ...record, ...state, process, diskSizes: new Map(), onChange });
  }

  recordOf(stage: GuestRecord["stage"], epoch: number): GuestRecord {
    const identity = { pid: 1, startTicks: 1, qmpPath: "qmp" };
    const base = { definition, accel: "tcg", uuid: GUEST_UUID, qemuVersion: QEMU_VERSION } as const;
    return { ...base, epoch, stage, identity };
  }

  processOf(life: Life, machine: Machine): GuestProcess {
    const { scheduler, random } = this.setting;
    const survives = (): boolean => {
      if (this.survivals === 0) return false;
      this.survivals -= 1;
      return true;
    };
    return processOf({ life, machine, scheduler, random, survives });
  }

  protected abstract launch(life: Life): Promise<void>;

  protected abstract bringBack(life: Life, guest: Guest): Promise<GivenBack>;

  #failedToStart(error: unknown): void {
    const { scheduler, random, trace, onFault } = this.setting;
    if (!(error instanceof AgentError)) onFault(`${this.side} does not start: ${String(error)}`);
    trace.comment(`  ${this.side}: ${String(error)}`);
    this.killAgent("it does not start");
    scheduler.after(random.spread(...START_AGAIN_MS), () => {
      if (this.isUp) this.boot();
    });
  }

  async #look(life: Life, record: GuestRecord): Promise<FoundGuest> {
    const gone: FoundGuest = { record, process: null, qemu: "gone" };
    const { machine } = this;
    if (machine === null || !machine.isAlive) return gone;
    const process = this.processOf(life, machine);
    for (;;) {
      try {
        return { record, process, qemu: seenQemu(await process.qmp.execute("query-status")) };
      } catch {
        if (!process.qmp.isOpen) return gone;
      }
    }
  }

  async #forget(life: Life): Promise<void> {
    await life.sleep(this.setting.random.spread(0.05, 2));
    if (life.port(`${this.side} record remove`)) this.record = null;
  }
}

interface GuestState {
  readonly running: boolean;
  readonly ownership: "incoming" | "handed-off" | "in-doubt" | null;
}

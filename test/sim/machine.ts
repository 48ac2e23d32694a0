/**
 * A QEMU with its guest: whether the vCPUs execute, what the memory holds, and the one write to the
 * disk that is under way. It outlives the agents; it dies when it is killed or its host crashes.
 */
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Side } from "./life.ts";
import { BLOCKS, PAGES, type Truth } from "./truth.ts";

/** Behind the pages: the device state, which knows the last acknowledged write. */
export const DEVICE: number = PAGES;

export type RunStatus =
  "running" | "paused" | "inmigrate" | "finish-migrate" | "postmigrate" | "io-error";

/** Where a block of the guest is written to, and what came of it. */
export type DiskAnswer = "written" | "stalled" | "failed";

export interface DiskWrite {
  readonly block: number;
  readonly value: number;
}

export interface MachinePorts {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly truth: Truth;
  readonly note: (what: string) => void;
  /** It executes: before anything of it changes. */
  readonly onRun: (machine: Machine) => void;
  /** It has ended, by whatever. */
  readonly onEnd: (machine: Machine) => void;
}

/** QEMU's refusal of a command. */
export class Refusal extends Error {
  override readonly name = "Refusal";
}

export abstract class Machine {
  readonly side: Side;
  /** Until then it answers nothing, and carries nothing out. */
  stalledUntilMs = 0;
  status: RunStatus;
  memory: number[] | null;
  protected readonly ports: MachinePorts;
  protected pending: DiskWrite | null = null;
  readonly #listeners = new Set<(name: string, data: Readonly<Record<string, unknown>>) => void>();
  readonly #mourners: (() => void)[] = [];
  #isAlive = true;
  #isRunning = false;
  #beats = 0;

  constructor(side: Side, ports: MachinePorts, status: RunStatus, memory: number[] | null) {
    this.side = side;
    this.ports = ports;
    this.status = status;
    this.memory = memory;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Of its monitor; throws `Refusal`. */
  abstract command(name: string, values: Readonly<Record<string, unknown>>): unknown;

  protected abstract write(write: DiskWrite): DiskAnswer;

  onEvent(listener: (name: string, data: Readonly<Record<string, unknown>>) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  onExit(mourner: () => void): void {
    if (this.#isAlive) this.#mourners.push(mourner);
    else mourner();
  }

  kill(why: string): void {
    if (!this.#isAlive) return;
    this.ports.note(`${this.side} QEMU ends: ${why}`);
    this.#isAlive = false;
    this.#isRunning = false;
    this.ports.onEnd(this);
    for (const mourner of this.#mourners.splice(0)) mourner();
  }

  /** A write that nobody answered is sent again: somebody else serves the disk now. */
  retryWrite(): void {
    if (this.pending !== null && this.status !== "io-error") this.#submit();
  }

  protected run(): void {
    if (this.#isRunning || !this.#isAlive) return;
    this.status = "running";
    this.#isRunning = true;
    this.ports.note(`${this.side} QEMU runs`);
    this.emit("RESUME");
    this.ports.onRun(this);
    if (this.pending !== null) this.#submit();
    this.#beats += 1;
    this.#beat(this.#beats);
  }

  protected halt(status: RunStatus): void {
    if (this.#isRunning) this.emit("STOP");
    this.#isRunning = false;
    this.status = status;
    this.ports.note(`${this.side} QEMU stands still: ${status}`);
  }

  protected emit(name: string, data: Readonly<Record<string, unknown>> = {}): void {
    for (const listener of [...this.#listeners]) listener(name, data);
  }

  /** Called when a page has changed: whoever migrates wants to know. */
  protected abstract dirtied(page: number): void;

  /** Called when nothing is under way to the disk any more. */
  protected drained(): void {
    // Whoever stops the vCPUs waits for it.
  }

  protected after(ms: number, run: () => void): void {
    this.ports.scheduler.after(ms, () => {
      if (this.#isAlive) run();
    });
  }

  #beat(beats: number): void {
    const { random, scheduler, truth, onRun } = this.ports;
    if (!this.#isRunning || beats !== this.#beats || this.memory === null || truth.isAsleep) return;
    onRun(this);
    const value = truth.beat();
    const page = value % PAGES;
    this.#remember(page, value);
    if (this.pending === null) {
      this.pending = { block: value % BLOCKS, value };
      this.#submit();
    }
    scheduler.after(
      random.spread(5, 1500),
      () => {
        this.#beat(beats);
      },
      true,
    );
  }

  #submit(): void {
    const write = this.pending;
    this.after(this.ports.random.spread(0.05, 5), () => {
      if (this.pending !== write || write === null || this.status === "io-error") return;
      const answer = this.write(write);
      if (answer === "written") this.#acknowledged(write);
      if (answer !== "failed") return;
      this.ports.note(`a write of the guest fails at the ${this.side}`);
      this.halt("io-error");
    });
  }

  #acknowledged({ block, value }: DiskWrite): void {
    this.pending = null;
    this.ports.truth.disk[block] = value;
    this.#remember(DEVICE, value);
    this.drained();
  }

  #remember(page: number, value: number): void {
    if (this.memory === null) return;
    this.memory[page] = value;
    this.ports.truth.memory[page] = value;
    this.dirtied(page);
  }
}
